"""One connection to a policy host or an MX host, over asyncio.

The host's addresses come from our own resolver, not from getaddrinfo() and its threads. Only global ones are connected
to, so that a record in somebody's zone cannot make us speak to a machine inside. The user has one deadline for all.
Errors are NetworkError, OSError and ssl.SSLError; `exchange` tells how far it got.
"""

import asyncio
import ipaddress
import os
import pathlib
import socket
import ssl
from collections.abc import Sequence

from postfix_mtasts.config import IpNetwork
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.sts.observation import Exchange, Stage

HTTPS_PORT = 443
_CONNECT_TIMEOUT = 3.0  # Seconds for one address, so that a dead one leaves time for the others.
_NO_TIMEOUT = 3600.0  # Seconds. asyncio must have one for a handshake; the user's deadline comes long before.
_MAX_WORDS = 200  # Characters.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, 2.1
# Not in all versions of Python: NAT64 of a network's own (RFC 8215), and IPv4-compatible addresses (RFC 4291, 2.5.5.1).
_LOCAL_V6 = (ipaddress.IPv6Network("64:ff9b:1::/48"), ipaddress.IPv6Network("::/96"))


class CaError(Exception):
    """There are no CA certificates to check hosts with; says where they were looked for."""


class NetworkError(Exception):
    """There is no connection, for a reason that the system has no error for."""


def is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the public Internet; of an IPv6 address that wraps an IPv4 one, whether that is."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local or any(address in network for network in _LOCAL_V6):
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return is_global(inner)
    return address.is_global and not address.is_multicast


def tls_context(ca_file: str) -> ssl.SSLContext:
    """What to check policy hosts with (RFC 8461, 3.3 and 7.2): the CAs of a PEM file, or of the system if it is empty.

    Raises CaError.
    """
    # Not ssl.create_default_context(): its flags differ between Python versions.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # Only a DNS-ID names a host (RFC 8461, 3.3).
    if not ca_file:
        context.load_default_certs()
        paths = ssl.get_default_verify_paths()
        if not context.get_ca_certs() and not (paths.capath and any(pathlib.Path(paths.capath).iterdir())):
            raise CaError(f"no CA certificates in {paths.openssl_capath}; install the package ca-certificates")
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError as error:
        raise CaError("no certificate in PEM form") from error
    except OSError as error:
        raise CaError(in_words(error)) from error
    return context


def in_words(error: Exception) -> str:
    """An error of the system or of a library on one line, without its numbers and file names."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _in_our_voice(error.verify_message)
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if isinstance(error, ConnectionError) and not str(error):
        return "connection closed"
    # h11 quotes all that it did not understand, up to 100 KB.
    return _in_our_voice(ascii(str(error)[:_MAX_WORDS])[1:-1]) or type(error).__name__


def _in_our_voice(text: str) -> str:
    """Without a capital letter and a full stop."""
    return (text[:1].lower() + text[1:] if text[1:2].islower() else text).rstrip(".")


class Network:
    """Makes one connection; `allow_addresses` are networks that may be connected to beside the global addresses.

    `keep_certificate` has the host's certificate noted in `exchange`: the daemon has no use for it, and saves the time.
    """

    def __init__(
        self, resolver: Resolver, allow_addresses: Sequence[IpNetwork], *, keep_certificate: bool = False
    ) -> None:
        self._resolver = resolver
        self._allow_addresses = allow_addresses
        self.keep_certificate = keep_certificate
        self._stream: Stream | None = None
        self.exchange = Exchange()

    async def connect(self, host: str, port: int) -> "Stream":
        """Connect to the first of the host's addresses that takes the connection."""
        connection = await self._connected(host, port)
        self._stream = Stream(self, *await asyncio.open_connection(sock=connection))
        return self._stream

    async def connect_tls(self, host: str, port: int, tls: ssl.SSLContext) -> "Stream":
        """The same, and speak TLS with a host that proves to have this name."""
        connection = await self._connected(host, port)
        self.enter(Stage.TLS)
        opening = asyncio.open_connection(
            sock=connection, ssl=tls, server_hostname=host, ssl_handshake_timeout=_NO_TIMEOUT
        )
        self._stream = Stream(self, *await opening)
        self._stream.note_tls()
        return self._stream

    def enter(self, stage: Stage) -> None:
        """The next stage begins."""
        self.exchange.enter(stage, asyncio.get_running_loop().time())

    def abort(self) -> None:
        """Close the connection at once, if there is one."""
        if self._stream:
            self._stream.abort()

    async def _connected(self, host: str, port: int) -> socket.socket:
        self.enter(Stage.ADDRESS)
        addresses = await self._addresses(host)
        self.enter(Stage.CONNECT)
        failures = []
        for address in addresses:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    connection = await _connect(address, port)
                self.exchange.address = address
                return connection
            except TimeoutError:
                failures.append(f"{address}: no answer within {_CONNECT_TIMEOUT:g} seconds")
            except OSError as error:
                failures.append(f"{address}: {in_words(error)}")
        raise NetworkError("; ".join(failures))

    async def _addresses(self, host: str) -> list[str]:
        try:
            addresses = await self._resolver.addresses(host)
        except DnsError as error:
            raise NetworkError(str(error)) from error
        self.exchange.addresses = addresses
        if not addresses:
            raise NetworkError(f"{host} has no address")
        allowed = [address for address in addresses if self._is_allowed(address)]
        if not allowed:
            raise NetworkError(f"{host} has no global address, only {', '.join(addresses)}")
        return allowed

    def _is_allowed(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        return is_global(address) or any(address in network for network in self._allow_addresses)


class Stream:
    """The connection once it stands."""

    def __init__(self, network: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._network = network
        self._reader = reader
        self._writer = writer

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on, with a host that proves to have this name."""
        self._network.enter(Stage.TLS)
        await self._writer.start_tls(tls, server_hostname=host, ssl_handshake_timeout=_NO_TIMEOUT)
        self.note_tls()

    def note_tls(self) -> None:
        """Tell the exchange what TLS has come to."""
        tls = self._writer.get_extra_info("ssl_object")
        self._network.exchange.tls = f"{tls.version()} {tls.cipher()[0]}"
        if self._network.keep_certificate:
            self._network.exchange.certificate = tls.getpeercert(binary_form=True)
        self._network.enter(Stage.RESPONSE)

    async def read(self, max_octets: int) -> bytes:
        """What has come, at most so many octets; none at the end."""
        return await self._reader.read(max_octets)

    async def write(self, data: bytes) -> None:
        """Send, and wait until the kernel takes more."""
        self._writer.write(data)
        await self._writer.drain()

    def abort(self) -> None:
        """Close at once."""
        self._writer.transport.abort()


async def _connect(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except (OSError, asyncio.CancelledError):
        connection.close()
        raise
    return connection
