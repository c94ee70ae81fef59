"""Makes one connection to a policy host or an MX host, with asyncio.

Addresses are looked up by our own resolver, because getaddrinfo() needs a thread for each lookup. Only public addresses
are connected to, so that a DNS record of a stranger cannot make the daemon connect to an internal machine. The caller
sets the deadline for all of it. Errors are NetworkError, OSError and ssl.SSLError, and `trace` shows how far the
connection got.
"""

import asyncio
import errno
import ipaddress
import os
import pathlib
import re
import socket
import ssl
from collections.abc import Sequence

from postfix_mtasts.config import IpNetwork
from postfix_mtasts.dns.nameservers import SHORTAGE, DnsError, LocalShortageError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.remote.stream import NetworkError, Stream
from postfix_mtasts.sts.observation import FetchTrace, Stage
from postfix_mtasts.turns import Turns

HTTPS_PORT = 443
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_CONNECT_TIMEOUT = 3.0  # Seconds for one address, so that there is time for the others if it does not answer.
_MAX_ERROR = 200  # Characters.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, 2.1
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291, 2.4; nothing else of IPv6 is routed in the Internet.
# Some versions of Python take these for global: for protocols (RFC 6890), for documentation (RFC 9637).
_NOT_GLOBAL = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv6Network("3fff::/20"))


MAIL_CIPHERS = "HIGH:MEDIUM:!aNULL"  # Those of Postfix (smtp_tls_mandatory_ciphers = medium).

# What OpenSSL calls some errors, and what an administrator should read.
_NO_ISSUER = ("unable to get local issuer certificate", "unable to verify the first certificate")
_NOT_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
_NO_COMMON_VERSION = ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")
_ALERT = re.compile(r"(?:(?:SSLV3|TLSV13?)_ALERT_|TLSV1_)(.+)")  # An alert that the host has sent.


class CaError(Exception):
    """There are no CA certificates to check hosts with. The message says where they should be."""


def is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address belongs to the public Internet.

    For an IPv6 address with an IPv4 address in it, the IPv4 address counts.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_global(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour:
            return is_global(address.sixtofour)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_GLOBAL)


def has_route(address: str) -> bool:
    """Whether this machine has a route to an address."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as route:
            route.connect((address, HTTPS_PORT))  # Of UDP, this sends nothing.
    except OSError as error:
        return error.errno not in _NO_ROUTE
    return True


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that verifies policy hosts with TLS 1.2 or later (RFC 8461, 3.3 and 7.2). Raises CaError.

    The trusted CAs are those of the PEM file `ca_file`, those of the system if it is "", and none if it is None.
    """
    # ssl.create_default_context() sets different flags in each version of Python.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # A host could ask for one handshake after the other.
    context.hostname_checks_common_name = False  # Only a DNS name in the SAN counts (RFC 8461, 3.3).
    # The host would choose the finite field for the key exchange. Browsers do not offer it either.
    context.set_ciphers(":".join(cipher["name"] for cipher in context.get_ciphers() if cipher["kea"] != "kx-dhe"))
    if ca_file is None:
        return context
    if not ca_file:
        context.load_default_certs()
        paths = ssl.get_default_verify_paths()
        if not context.get_ca_certs() and not (paths.capath and any(pathlib.Path(paths.capath).iterdir())):
            raise CaError(f"no CA certificates in {paths.openssl_capath}; install the package ca-certificates")
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError as error:
        raise CaError("the file has no certificate in PEM format") from error
    except OSError as error:
        raise CaError(in_words(error)) from error
    return context


def mail_tls_context(ca_file: str, ca_path: str, ours: str) -> ssl.SSLContext:
    """Return a context that trusts the CAs that Postfix trusts for MX hosts, and checks no names: policies do that.

    It offers old ciphers too, as Postfix does.

    `ca_file` and `ca_path` are Postfix's smtp_tls_CAfile and smtp_tls_CApath, a folder with hash links (openssl
    rehash). Where both are "", `ours` is fetch.ca_file. Raises CaError, which names the setting.
    """
    try:
        context = tls_context(ca_file or (None if ca_path else ours))
    except CaError as error:
        setting = f"smtp_tls_CAfile = {ca_file}" if ca_file else f'fetch.ca_file = "{ours}"'
        raise CaError(f"{setting}: {error}") from error
    if ca_path:
        try:
            next(pathlib.Path(ca_path).iterdir(), None)  # OpenSSL would look later, and say nothing.
        except OSError as error:
            raise CaError(f"smtp_tls_CApath = {ca_path}: {in_words(error)}") from error
        context.load_verify_locations(capath=ca_path)
    context.check_hostname = False
    context.set_ciphers(MAIL_CIPHERS)
    return context


def in_words(error: Exception) -> str:
    """Describe an error of the system or of a library on one line, without error numbers and file names."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_message in _NO_ISSUER:
            return "intermediate certificate missing, or CA not trusted"
        return _plain(error.verify_message)
    if isinstance(error, ssl.SSLZeroReturnError):
        return "the host ended the TLS connection"
    if isinstance(error, ssl.SSLError):  # Its errno is OpenSSL's, and no error of the system.
        return _tls_reason(error.reason) if error.reason else "unknown TLS error"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if isinstance(error, ConnectionError) and not str(error):
        return "the connection was closed"
    # h11 quotes everything that it could not parse, up to 100 KB.
    return _plain(ascii(str(error)[:_MAX_ERROR])[1:-1]) or type(error).__name__


def _tls_reason(reason: str) -> str:
    """Describe OpenSSL's reason, such as WRONG_VERSION_NUMBER."""
    if reason in _NO_COMMON_VERSION:
        return "no common TLS version (TLS 1.2 or later is needed)"
    if reason in _NOT_TLS:
        return "the answer is not valid TLS"
    if reason == "UNEXPECTED_EOF_WHILE_READING":
        return "the host closed the connection"
    alert = _ALERT.fullmatch(reason)
    words = (alert[1] if alert else reason).replace("_", " ").lower()
    return f"the host sent TLS alert '{words}'" if alert else words


def _plain(text: str) -> str:
    """Remove the capital letter at the beginning and the full stop at the end."""
    return (text[:1].lower() + text[1:] if text[1:2].islower() else text).rstrip(".")


class Network:
    """Makes one connection, to a public address or to one in the networks `allow_addresses`.

    With `keep_certificate`, the trace has the host's certificate. The daemon does not need it, and saves the time.
    Connections that are made at the same time may share `turns`.
    """

    def __init__(
        self,
        resolver: Resolver,
        allow_addresses: Sequence[IpNetwork],
        turns: Turns | None = None,
        *,
        keep_certificate: bool = False,
    ) -> None:
        self._resolver = resolver
        self._allow_addresses = allow_addresses
        self._turns = turns or Turns()
        self._keep_certificate = keep_certificate
        self._stream: Stream | None = None
        self.trace = FetchTrace()

    async def connect(self, host: str, port: int) -> Stream:
        """Connect to the first address of the host that accepts the connection."""
        self._stream = Stream(await self._connected(host, port), self._turns)
        return self._stream

    async def connect_to_proxy(self, host: str, port: int) -> Stream:
        """Connect to a proxy, by its name or its address. The administrator has chosen it, so it may be anywhere."""
        self.enter(Stage.PROXY)
        addresses = (host,) if _is_address(host) else await self._look_up(host)
        if not addresses:
            raise NetworkError("has no address")
        try:
            connection, _ = await _first(addresses, port)
        except NetworkError as error:
            raise NetworkError(f"cannot be reached: {error}") from error
        self._stream = Stream(connection, self._turns)
        return self._stream

    async def start_tls(self, stream: Stream, host: str, tls: ssl.SSLContext) -> None:
        """Start TLS on the connection, and verify the host's certificate with `tls`."""
        self.enter(Stage.TLS)
        await stream.start_tls(tls, host)
        established = stream.tls
        cipher = established.cipher() if established else None
        if established and cipher:
            self.trace.tls = f"{established.version()} {cipher[0]}"
            if self._keep_certificate:
                self.trace.certificate = established.getpeercert(binary_form=True) or b""
        self.enter(Stage.RESPONSE)

    def enter(self, stage: Stage) -> None:
        """Note that the next stage begins."""
        self.trace.enter(stage, asyncio.get_running_loop().time())

    def abort(self) -> None:
        """Close the connection at once, if there is one."""
        if self._stream:
            self._stream.abort()

    async def _connected(self, host: str, port: int) -> socket.socket:
        self.enter(Stage.ADDRESS)
        addresses = await self._addresses(host)
        self.enter(Stage.CONNECT)
        connection, self.trace.address = await _first(addresses, port)
        return connection

    async def _addresses(self, host: str) -> list[str]:
        addresses = self.trace.addresses = await self._look_up(host)
        if not addresses:
            raise NetworkError(f"{host} has no address")
        allowed = [address for address in addresses if self._is_allowed(address)]
        if not allowed:
            raise NetworkError(f"{host} has no public address, only {', '.join(addresses)}")
        return allowed

    async def _look_up(self, host: str) -> tuple[str, ...]:
        try:
            return await self._resolver.addresses(host)
        except LocalShortageError as shortage:
            raise NetworkError(str(shortage), is_local=True) from shortage
        except DnsError as error:
            raise NetworkError(str(error)) from error

    def _is_allowed(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        return is_global(address) or any(address in network for network in self._allow_addresses)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _first(addresses: Sequence[str], port: int) -> tuple[socket.socket, str]:
    """Connect to the first address that accepts the connection. Raises NetworkError if none does."""
    failures = []
    for address in addresses:
        try:
            return await _connect(address, port), address
        except TimeoutError:
            failures.append(f"{address}: no answer within {_CONNECT_TIMEOUT:g} s")
        except OSError as error:
            if error.errno in SHORTAGE:
                raise
            failures.append(f"{address}: {in_words(error)}")
    raise NetworkError("; ".join(failures))


async def _connect(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except TimeoutError:
        if not _is_connected(connection):  # It is when this process was stopped meanwhile.
            connection.close()
            raise
    except (OSError, asyncio.CancelledError):
        connection.close()
        raise
    return connection


def _is_connected(connection: socket.socket) -> bool:
    try:
        connection.getpeername()
    except OSError:
        return False
    return True
