"""A connection to a policy host through the administrator's proxy: by HTTP's CONNECT (RFC 9110, 9.3.6), or by SOCKS5
(RFC 1928).

The proxy gets the name of the host, looks it up, and connects; TLS then goes end to end as without a proxy. What a
proxy sends is within the bounds of any stream and of any response, and within the caller's deadline. Every failure is a
NetworkError that begins with the URL of the proxy.
"""

import base64
from typing import cast

import httpcore

from postfix_mtasts import __version__
from postfix_mtasts.config_file import Proxy
from postfix_mtasts.remote.http1 import Connection, Http, ResponseError, protocol_words
from postfix_mtasts.remote.network import Network
from postfix_mtasts.remote.stream import NetworkError, Stream

# What an administrator must know of a proxy.
GUARD = (
    "the proxy looks up policy hosts and connects to them, so it must refuse addresses inside your network; "
    "fetch.allow_addresses has no effect"
)
_MAX_PHRASE = 60  # Characters of the reason phrase of an answer that are told.
_ENDED = "closed the connection before the end of its answer"
_NOT_SOCKS = "does not speak SOCKS5"
_WANTS_CREDENTIALS = "asks for a user and a password: set fetch.proxy_credentials"
_WRONG_CREDENTIALS = "does not accept the user and password in fetch.proxy_credentials"
# RFC 1928 and 1929.
_SOCKS, _CONNECT, _BY_NAME = 5, 1, 3
_NO_CREDENTIALS, _CREDENTIALS, _NO_METHOD = 0, 2, 0xFF
_ADDRESS_SIZES = {1: 4, 4: 16}  # Octets by the kind of an address.
_REPLIES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "kind of address not supported",
}


class RefusedError(NetworkError):
    """The proxy works, and has not connected to this host."""


async def connected(network: Network, proxy: Proxy | None, host: str, port: int) -> Stream:
    """Connect to a policy host, through the proxy if there is one. Raises OSError and NetworkError."""
    if not proxy:
        return await network.connect(host, port)
    network.trace.proxy = str(proxy.url)
    try:
        stream = await network.connect_to_proxy(proxy.url.host, proxy.url.port)
        await (_socks if proxy.url.scheme == "socks5" else _http)(stream, proxy, host, port)
    except RefusedError as error:
        raise RefusedError(f"{proxy.url} did not connect to {host}:{port}: {error}") from error
    except NetworkError as error:
        raise NetworkError(f"{proxy.url} {error}", is_local=error.is_local) from error
    except ConnectionError as error:
        raise NetworkError(f"{proxy.url} {_ENDED}") from error
    return stream


async def _http(stream: Stream, proxy: Proxy, host: str, port: int) -> None:
    authority = f"{host}:{port}"
    headers = {"Host": authority, "User-Agent": f"postfix-mtasts/{__version__}"}
    if proxy.user:
        pair = base64.b64encode(f"{proxy.user}:{proxy.password}".encode())
        headers["Proxy-Authorization"] = f"Basic {pair.decode()}"  # RFC 7617
    url = httpcore.URL(
        scheme=b"http", host=proxy.url.host.encode(), port=proxy.url.port, target=authority.encode("ascii")
    )
    http = Http(url.origin, cast("httpcore.AsyncNetworkStream", Connection(stream)))
    request = httpcore.Request(b"CONNECT", url, headers=list(headers.items()))
    try:
        response = await http.handle_async_request(request)
    except ResponseError as error:
        raise NetworkError(f"answers wrongly: {error}") from error
    except httpcore.ProtocolError as error:
        words = protocol_words(error)
        raise NetworkError(_ENDED if "disconnected" in words else f"answers wrongly: {words}") from error
    if response.status in (401, 407):  # tinyproxy answers 401 to wrong credentials.
        raise NetworkError(f"{_WRONG_CREDENTIALS if proxy.user else _WANTS_CREDENTIALS} (status {response.status})")
    if not 200 <= response.status <= 299:
        phrase = ascii(response.extensions.get("reason_phrase", b"")[:_MAX_PHRASE].decode("latin-1"))[1:-1]
        raise RefusedError(f"status {response.status} {phrase}".rstrip())


async def _socks(stream: Stream, proxy: Proxy, host: str, port: int) -> None:
    methods = [_NO_CREDENTIALS, _CREDENTIALS] if proxy.user else [_NO_CREDENTIALS]
    await stream.write(bytes([_SOCKS, len(methods), *methods]))
    version, method = await _exactly(stream, 2)
    if version != _SOCKS or method not in (*methods, _NO_METHOD):
        raise NetworkError(_NOT_SOCKS)
    if method == _NO_METHOD:
        raise NetworkError(_WRONG_CREDENTIALS if proxy.user else _WANTS_CREDENTIALS)
    if method == _CREDENTIALS:
        await stream.write(b"\x01" + _counted(proxy.user) + _counted(proxy.password))
        if (await _exactly(stream, 2))[1]:
            raise NetworkError(_WRONG_CREDENTIALS)
    await stream.write(bytes([_SOCKS, _CONNECT, 0, _BY_NAME]) + _counted(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = await _exactly(stream, 4)
    if version != _SOCKS:
        raise NetworkError(_NOT_SOCKS)
    if reply:
        raise RefusedError(_REPLIES.get(reply, f"reply {reply}"))
    size = (await _exactly(stream, 1))[0] if kind == _BY_NAME else _ADDRESS_SIZES.get(kind)
    if size is None:
        raise NetworkError(_NOT_SOCKS)
    await _exactly(stream, size + 2)  # The address and port that the proxy connects from. Nobody needs them.


async def _exactly(stream: Stream, octets: int) -> bytes:
    """So many octets, in however many pieces they come."""
    data = b""
    while len(data) < octets:
        more = await stream.read(octets - len(data))
        if not more:
            raise NetworkError(_ENDED)
        data += more
    return data


def _counted(text: str) -> bytes:
    """A text with its length before it."""
    return bytes([len(text.encode())]) + text.encode()
