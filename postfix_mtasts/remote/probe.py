"""What a host shows when it is connected to: an MX host with STARTTLS (RFC 8461, 4.2), a policy host with TLS."""

import asyncio
import ipaddress
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass

from postfix_mtasts.config import IpNetwork
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.remote.network import HTTPS_PORT, Network, NetworkError, Stream, in_words
from postfix_mtasts.sts.observation import Stage

SMTP_PORT = 25
# As Postfix does, mail is brought to wherever its MX records say.
_EVERYWHERE = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))
_DEADLINE = 30.0  # Seconds for all of one connection.
_MAX_REPLY = 10_000  # Octets.
_LAST_LINE = re.compile(rb"(?:^|\n)([0-9]{3})(?: [^\n]*)?\r?\n\Z")


@dataclass(frozen=True, slots=True)
class Probe:
    """What an MX host showed when it was connected to as Postfix would; what was not come to is empty."""

    address: str
    tls: str  # The version, and the cipher.
    certificate: bytes  # DER.
    problem: str | None  # Why a policy that allows the host would hold back mail for it.
    seconds: float


class _SmtpError(Exception):
    """The host does not do what it should."""


class Prober:
    """Connects to hosts, which are checked with `tls`; to MX hosts it says that its name is `helo`.

    `allow_addresses` are networks that policy hosts may be in beside the global addresses.
    """

    def __init__(
        self, resolver: Resolver, tls: ssl.SSLContext, helo: str, allow_addresses: Sequence[IpNetwork] = ()
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._helo = helo
        self._allow_addresses = allow_addresses

    async def probe(self, host: str) -> Probe:
        """Connect to an MX host, and speak TLS with it."""
        begun = time.monotonic()
        network = self._network(SMTP_PORT)
        problem = await self._problem(network, host, SMTP_PORT, self._tls)
        seen = network.exchange
        certificate = seen.certificate
        if problem and seen.stage is Stage.TLS:
            certificate = await self.certificate_of(host, SMTP_PORT)
        return Probe(seen.address, seen.tls, certificate, problem, time.monotonic() - begun)

    async def certificate_of(self, host: str, port: int) -> bytes:
        """The certificate that a host shows, whatever is wrong with it, in DER; none if it shows none."""
        network = self._network(port)
        unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unchecked.check_hostname = False
        unchecked.verify_mode = ssl.CERT_NONE  # To show it is all that is done with it.
        await self._problem(network, host, port, unchecked)
        return network.exchange.certificate

    def _network(self, port: int) -> Network:
        allowed = self._allow_addresses if port == HTTPS_PORT else _EVERYWHERE
        return Network(self._resolver, allowed, keep_certificate=True)

    async def _problem(self, network: Network, host: str, port: int, tls: ssl.SSLContext) -> str | None:
        """Connect, and see what keeps TLS from being established."""
        try:
            async with asyncio.timeout(_DEADLINE):
                if port == HTTPS_PORT:
                    await network.connect_tls(host, port, tls)
                else:
                    stream = await network.connect(host, port)
                    await self._ask_for_tls(stream)
                    await stream.start_tls(tls, host)
        except TimeoutError:
            return f"not done within {_DEADLINE:g} seconds"
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
    """An SMTP reply (RFC 5321, 4.2). Raises _SmtpError unless it has the code that is expected."""
    reply = b""
    while not (last := _LAST_LINE.search(reply)):
        data = await stream.read(_MAX_REPLY)
        if not data:
            raise _SmtpError(f"closes the connection before its {what}")
        reply += data
        if len(reply) > _MAX_REPLY:
            raise _SmtpError(f"its {what} does not end")
    if last[1] != expected:
        raise _SmtpError(f"its {what} is {reply.decode('ascii', 'replace').strip()[:100]!a}")
    return reply
