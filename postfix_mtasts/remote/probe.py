"""Connects to hosts to see whether TLS works: to MX hosts with STARTTLS (RFC 8461, 4.2), to policy hosts over HTTPS.

A probe says what a host does, and decides nothing: whether Postfix accepts the names in a certificate depends on the
policy.
"""

import asyncio
import ipaddress
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass

from postfix_mtasts.config import IpNetwork
from postfix_mtasts.config_file import Proxy
from postfix_mtasts.dns.resolver import Pinned, Resolver
from postfix_mtasts.remote.network import HTTPS_PORT, MAIL_CIPHERS, Network, in_words, tls_context
from postfix_mtasts.remote.proxy import connected
from postfix_mtasts.remote.stream import NetworkError, Stream
from postfix_mtasts.sts.observation import Stage
from postfix_mtasts.turns import Turns

# Like Postfix, the probe of an administrator connects to any address that an MX host has. The daemon's does not.
EVERYWHERE = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))
DEADLINE = 10.0  # Seconds for all of one connection.
# Connections at once. The owners of domains that are looked at together list as many MX hosts as they like, and as many
# addresses, and a process may have 1024 files open.
MAX_AT_ONCE = 200
_MAX_REPLY = 10_000  # Bytes.
_LAST_LINE = re.compile(rb"([0-9]{3})(?: [^\n]*)?\r?\n")
_TRANSIENT = b"4"  # The first digit of a reply that may be another one later (RFC 5321, 4.2.1).


@dataclass(frozen=True, slots=True)
class Probe:
    """A connection to one address of an MX host. Fields that it did not get to are empty.

    `names` are the DNS names in a certificate that a CA has signed: the alternative names, or the common name if there
    are none. `problem` is what TLS or the certificate lacks. `unclear` is why the connection shows nothing of them: the
    host may answer others.
    """

    address: str
    tls: str = ""  # The TLS version and the cipher.
    certificate: bytes = b""  # In DER.
    chain: tuple[bytes, ...] = ()  # What the host sent, in DER, if this version of Python shows it.
    names: tuple[str, ...] = ()
    problem: str | None = None
    unclear: str | None = None
    untrusted: bool = False  # The problem is that no trusted CA has signed the certificate, or that it has expired.
    seconds: float = 0.0


class _SmtpError(Exception):
    """The host did not follow SMTP, or does not speak to us."""


class _NoTlsError(Exception):
    """The host does not offer STARTTLS, or does not start TLS."""


class _Dialogue:
    """What a probe is waiting for."""

    def __init__(self) -> None:
        self.awaits = "connection"


class Prober:
    """Connects to hosts, and verifies certificates of MX hosts with `tls`, which must not check names.

    `helo` is the name that it sends to MX hosts in EHLO. Policy hosts must have a public address, or one in the
    networks `allow_addresses`, or they are connected to through the proxy. MX hosts never are, as from Postfix; they
    must have an address in `mail_addresses`, or a public one.
    """

    def __init__(
        self,
        resolver: Resolver,
        tls: ssl.SSLContext,
        helo: str,
        allow_addresses: Sequence[IpNetwork] = (),
        proxy: Proxy | None = None,
        mail_addresses: Sequence[IpNetwork] = EVERYWHERE,
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._helo = helo
        self._allow_addresses = allow_addresses
        self._proxy = proxy
        self._mail_addresses = mail_addresses
        self._turns = Turns()
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    async def probe(self, host: str, address: str, port: int) -> Probe:
        """Connect to an address of an MX host and start TLS, once there is a place among MAX_AT_ONCE connections."""
        async with self._places:
            return await self._probe(host, address, port)

    async def _probe(self, host: str, address: str, port: int) -> Probe:
        begun = time.monotonic()
        network = self._to(address)
        dialogue = _Dialogue()
        problem = unclear = None
        untrusted = False
        chain: tuple[bytes, ...] = ()
        names: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(DEADLINE):
                established = await self._start_tls(network, dialogue, host, port, self._tls)
                chain, names = _chain(established), _names(established)
        except TimeoutError:
            unclear = f"no {dialogue.awaits} within {DEADLINE:g} s"
        except _SmtpError as error:
            unclear = str(error)
        except _NoTlsError as error:
            problem = str(error)
        except ssl.SSLCertVerificationError as error:
            problem, untrusted = in_words(error), True
        except ssl.SSLError as error:
            problem = in_words(error)
        except (OSError, NetworkError) as error:
            unclear = in_words(error).removeprefix(f"{address}: ").removeprefix(f"{host} ")
        finally:
            network.abort()
        seen = network.trace
        certificate = seen.certificate
        if problem and seen.stage is Stage.TLS:
            certificate, chain = await self._shown(network, host, port, address)
        took = time.monotonic() - begun
        return Probe(address, seen.tls, certificate, chain, names, problem, unclear, untrusted, took)

    async def certificate_of(self, host: str) -> bytes:
        """Return a policy host's certificate in DER without verifying it, or b"" if TLS does not work."""
        network = Network(self._resolver, self._allow_addresses, keep_certificate=True)
        try:
            async with asyncio.timeout(DEADLINE):
                stream = await connected(network, self._proxy, host, HTTPS_PORT)
                await network.start_tls(stream, host, _unverified())
        except (OSError, NetworkError, TimeoutError):
            return b""
        finally:
            network.abort()
        return network.trace.certificate

    def _to(self, address: str) -> Network:
        """What connects to one address of an MX host."""
        return Network(Pinned(address), self._mail_addresses, self._turns, keep_certificate=True)

    async def _shown(self, failed: Network, host: str, port: int, address: str) -> tuple[bytes, tuple[bytes, ...]]:
        """The certificate of an MX host that could not be verified, and its chain. It is only shown, never trusted."""
        network = self._to(address)
        try:
            async with asyncio.timeout(DEADLINE):
                established = await self._start_tls(network, _Dialogue(), host, port, _unverified())
        except (OSError, NetworkError, TimeoutError, _SmtpError, _NoTlsError):
            return failed.trace.certificate, ()
        finally:
            network.abort()
        return network.trace.certificate, _chain(established)

    async def _start_tls(
        self, network: Network, dialogue: _Dialogue, host: str, port: int, tls: ssl.SSLContext
    ) -> ssl.SSLObject | None:
        stream = await network.connect(host, port)
        await self._ask_for_tls(stream, dialogue)
        dialogue.awaits = "end of the TLS handshake"
        await network.start_tls(stream, host, tls)
        return stream.tls

    async def _ask_for_tls(self, stream: Stream, dialogue: _Dialogue) -> None:
        await _reply(stream, b"220", "greeting", dialogue)
        await stream.write(f"EHLO {self._helo}\r\n".encode())
        offers = await _reply(stream, b"250", "answer to EHLO", dialogue)
        if not re.search(rb"^250[ -]STARTTLS\r?$", offers, re.MULTILINE | re.IGNORECASE):
            raise _NoTlsError("does not offer STARTTLS")
        await stream.write(b"STARTTLS\r\n")
        try:
            await _reply(stream, b"220", "answer to STARTTLS", dialogue)
        except _RefusedError as error:
            raise _NoTlsError(str(error)) from error


class _RefusedError(_SmtpError):
    """The host replied with a lasting error."""


def _unverified() -> ssl.SSLContext:
    context = tls_context(None)  # A host that nobody trusts may cost no more time than others.
    context.set_ciphers(MAIL_CIPHERS)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # The certificate is only shown to the administrator.
    return context


def _names(tls: ssl.SSLObject | None) -> tuple[str, ...]:
    """The DNS names in a verified certificate, or its common names if there are none, as in Postfix."""
    found = (tls.getpeercert() if tls else None) or {}
    alternatives: Sequence[tuple[str, str]] = found.get("subjectAltName", ())  # type: ignore[assignment]
    names = tuple(value for kind, value in alternatives if kind == "DNS")
    if names:
        return names
    subject: Sequence[Sequence[tuple[str, str]]] = found.get("subject", ())  # type: ignore[assignment]
    return tuple(value for part in subject for kind, value in part if kind == "commonName")


def _chain(tls: ssl.SSLObject | None) -> tuple[bytes, ...]:
    shown = getattr(tls, "get_unverified_chain", None)  # Since Python 3.13.
    return tuple(shown()) if shown else ()


async def _reply(stream: Stream, expected: bytes, what: str, dialogue: _Dialogue) -> bytes:
    """Read an SMTP reply (RFC 5321, 4.2). Raises _SmtpError if it does not have the expected code."""
    dialogue.awaits = what
    reply = b""
    # Only the latest line is looked at, since the host may send octet by octet.
    while not (last := _LAST_LINE.fullmatch(reply, reply.rfind(b"\n", 0, -1) + 1)):
        data = await stream.read(_MAX_REPLY)
        if not data:
            raise _SmtpError(f"closed the connection before its {what}")
        reply += data
        if len(reply) > _MAX_REPLY:
            raise _SmtpError(f"its {what} is longer than {_MAX_REPLY} bytes")
    if last[1] != expected:
        lasting = not last[1].startswith(_TRANSIENT)
        words = f"its {what} is {reply.decode('ascii', 'replace').strip()[:100]!a}"
        raise _RefusedError(words) if lasting else _SmtpError(words)
    return reply
