"""Connects to hosts to see whether TLS works: to MX hosts with STARTTLS (RFC 8461, 4.2), to policy hosts over HTTPS."""

import asyncio
import ipaddress
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass

from postfix_mtasts.config import IpNetwork
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.remote.network import HTTPS_PORT, Network, in_words
from postfix_mtasts.remote.stream import NetworkError, Stream
from postfix_mtasts.sts.observation import Stage

SMTP_PORT = 25
# Like Postfix, a probe connects to any address that an MX host has.
_EVERYWHERE = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))
_DEADLINE = 30.0  # Seconds for all of one connection.
_MAX_REPLY = 10_000  # Bytes.
_LAST_LINE = re.compile(rb"(?:^|\n)([0-9]{3})(?: [^\n]*)?\r?\n\Z")


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of a connection to an MX host, made as Postfix would. Fields that it did not get to are empty."""

    address: str
    tls: str  # The TLS version and the cipher.
    certificate: bytes  # In DER.
    problem: str | None  # Why mail to this host is deferred under a policy that allows it.
    seconds: float


class _SmtpError(Exception):
    """The host did not follow SMTP, or does not offer STARTTLS."""


class Prober:
    """Connects to hosts and verifies them with `tls`. `helo` is the name that it sends to MX hosts in EHLO.

    Policy hosts must have a public address, or one in the networks `allow_addresses`.
    """

    def __init__(
        self, resolver: Resolver, tls: ssl.SSLContext, helo: str, allow_addresses: Sequence[IpNetwork] = ()
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._helo = helo
        self._allow_addresses = allow_addresses

    async def probe(self, host: str) -> Probe:
        """Connect to an MX host and start TLS. A failure is the `problem` of the result."""
        begun = time.monotonic()
        network = self._network(SMTP_PORT)
        problem = await self._problem(network, host, SMTP_PORT, self._tls)
        seen = network.trace
        certificate = seen.certificate
        if problem and seen.stage is Stage.TLS:
            certificate = await self.certificate_of(host, SMTP_PORT)
        return Probe(seen.address, seen.tls, certificate, problem, time.monotonic() - begun)

    async def certificate_of(self, host: str, port: int) -> bytes:
        """Return a host's certificate in DER without verifying it, or b"" if TLS does not work."""
        network = self._network(port)
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE  # The certificate is only shown to the administrator.
        await self._problem(network, host, port, unverified)
        return network.trace.certificate

    def _network(self, port: int) -> Network:
        allowed = self._allow_addresses if port == HTTPS_PORT else _EVERYWHERE
        return Network(self._resolver, allowed, keep_certificate=True)

    async def _problem(self, network: Network, host: str, port: int, tls: ssl.SSLContext) -> str | None:
        """Connect and start TLS. Return why that failed, or None."""
        try:
            async with asyncio.timeout(_DEADLINE):
                if port == HTTPS_PORT:
                    await network.start_tls(await network.connect(host, port), host, tls)
                else:
                    stream = await network.connect(host, port)
                    await self._ask_for_tls(stream)
                    await network.start_tls(stream, host, tls)
        except TimeoutError:
            return f"timed out after {_DEADLINE:g} s"
        except (_SmtpError, NetworkError) as error:
            return str(error)
        except OSError as error:
            return in_words(error)
        finally:
            network.abort()
        return None

    async def _ask_for_tls(self, stream: Stream) -> None:
        await _reply(stream, b"220", "greeting")
        await stream.write(f"EHLO {self._helo}\r\n".encode())
        offers = await _reply(stream, b"250", "answer to EHLO")
        if not re.search(rb"^250[ -]STARTTLS\r?$", offers, re.MULTILINE | re.IGNORECASE):
            raise _SmtpError("does not offer STARTTLS")
        await stream.write(b"STARTTLS\r\n")
        await _reply(stream, b"220", "answer to STARTTLS")


async def _reply(stream: Stream, expected: bytes, what: str) -> bytes:
    """Read an SMTP reply (RFC 5321, 4.2). Raises _SmtpError if it does not have the expected code."""
    reply = b""
    while not (last := _LAST_LINE.search(reply)):
        data = await stream.read(_MAX_REPLY)
        if not data:
            raise _SmtpError(f"closed the connection before its {what}")
        reply += data
        if len(reply) > _MAX_REPLY:
            raise _SmtpError(f"its {what} is longer than {_MAX_REPLY} bytes")
    if last[1] != expected:
        raise _SmtpError(f"its {what} is {reply.decode('ascii', 'replace').strip()[:100]!a}")
    return reply
