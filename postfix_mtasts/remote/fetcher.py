"""The policy file over HTTPS, through httpx (RFC 8461, 3.3).

A policy is fetched by one GET of https://mta-sts.DOMAIN/.well-known/mta-sts.txt, within one deadline and on a
connection of its own. Anything but status 200, text/plain and at most 64 KiB has failed. Redirects, cookies, caches,
content encodings and the proxies of the environment are not used. Every failure becomes a `Failure`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import cast

import httpcore
import httpx

from postfix_mtasts import __version__
from postfix_mtasts.config import IpNetwork
from postfix_mtasts.config_file import Proxy
from postfix_mtasts.dns.nameservers import SHORTAGE
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.remote.http1 import Connection, Http, ResponseError, protocol_words
from postfix_mtasts.remote.network import HTTPS_PORT, Network, in_words
from postfix_mtasts.remote.proxy import connected
from postfix_mtasts.remote.stream import NetworkError
from postfix_mtasts.sts import policy
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.observation import (
    Failure,
    FetchFailed,
    FetchObservation,
    FetchTrace,
    PolicyFetched,
    PolicyInvalid,
    ResultType,
    Stage,
)
from postfix_mtasts.turns import Turns

_STOPPED = 5.0  # If a deadline fires so many seconds late, the process was stopped. Load alone delays it less.
_PATH = "/.well-known/mta-sts.txt"
_HEADERS = {
    "User-Agent": f"postfix-mtasts/{__version__}",
    "Accept": "text/plain",
    "Accept-Encoding": "identity",
    "Connection": "close",
}


class Fetcher:
    """Fetches policies, each in at most `timeout` seconds.

    `tls` verifies the policy hosts. `allow_addresses` are networks that they may be in, beside the global addresses.
    With a proxy, they do not matter: it looks up the hosts, and connects to them. `keep_certificate` has the
    certificate of the host noted in the observation.
    """

    def __init__(
        self,
        resolver: Resolver,
        tls: ssl.SSLContext,
        *,
        timeout: float,
        allow_addresses: Sequence[IpNetwork] = (),
        proxy: Proxy | None = None,
        port: int = HTTPS_PORT,
        keep_certificate: bool = False,
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._timeout = timeout
        self._allow_addresses = allow_addresses
        self._proxy = proxy
        self._port = port
        self._keep_certificate = keep_certificate
        self._turns = Turns()

    async def fetch(self, domain: PolicyDomain, record_id: str, seen: FetchTrace | None = None) -> FetchObservation:
        """The policy of a domain whose record has this id, or why there is none. `seen` shows meanwhile how it goes."""
        network = Network(self._resolver, self._allow_addresses, self._turns, keep_certificate=self._keep_certificate)
        seen = network.trace = seen or network.trace
        clock = asyncio.get_running_loop().time
        until = clock() + self._timeout
        try:
            async with asyncio.timeout_at(until):
                seen.body = await self._get(domain.policy_host(), network)
        except TimeoutError:
            # If this process was stopped beyond the deadline, the host was not necessarily slow.
            was_stopped = clock() > until + _STOPPED
            words = "this machine was stopped meanwhile" if was_stopped else f"timed out after {self._timeout:g} s"
            failure = Failure(seen.stage, words, is_local=was_stopped)
        except ssl.SSLCertVerificationError as error:
            failure = Failure(Stage.CERTIFICATE, in_words(error), ResultType.WEBPKI_INVALID)
        except NetworkError as error:
            failure = Failure(seen.stage, str(error), is_local=error.is_local)
        except ResponseError as error:
            failure = Failure(seen.stage, str(error))
        except ssl.SSLEOFError as error:
            cut = "the connection was cut before the end of the response (no TLS close_notify)"
            failure = Failure(seen.stage, cut if seen.stage is Stage.RESPONSE else in_words(error))
        except OSError as error:
            failure = Failure(seen.stage, in_words(error), is_local=error.errno in SHORTAGE)
        except httpcore.ProtocolError as error:
            failure = Failure(seen.stage, protocol_words(error))
        except ValueError:  # From h11 0.14: the number has more digits than Python takes.
            failure = Failure(seen.stage, "bad Content-Length")
        else:
            network.enter(Stage.POLICY)
            return _read(seen, record_id)
        finally:
            network.abort()
        return FetchFailed(failure, record_id, seen)

    async def _get(self, host: str, network: Network) -> bytes:
        # Only a transport: cookies, redirects and the like, which httpx's client adds, are what a policy must not meet.
        stream = await connected(network, self._proxy, host, self._port)
        await network.start_tls(stream, host, self._tls)
        connection = Connection(stream)
        request = httpx.Request("GET", f"https://{host}:{self._port}{_PATH}", headers=_HEADERS)
        response = await _Transport(connection).handle_async_request(request)
        connection.expect_body()
        network.trace.status = response.status_code
        network.trace.headers = _texts(response.headers.raw)
        _check_headers(response.status_code, network.trace.headers)
        body = bytearray()
        async for data in response.aiter_raw():
            body += data
            if len(body) > policy.MAX_SIZE:
                raise ResponseError(policy.TOO_LARGE)
            await self._turns.take(1)  # Of a body in chunks of one octet, h11 has thousands at hand.
        await self._turns.take(1)  # Before it is parsed.
        return bytes(body)


class _Transport(httpx.AsyncBaseTransport):
    """Has httpcore speak HTTP/1.1 over a connection of ours, which httpx's own transport cannot be given."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port or HTTPS_PORT,
            target=request.url.raw_path,
        )
        connection = Http(url.origin, cast("httpcore.AsyncNetworkStream", self._connection))
        sent = httpcore.Request(request.method, url, headers=request.headers.raw)
        response = await connection.handle_async_request(sent)
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))


class _Body(httpx.AsyncByteStream):
    """The body of httpcore's response, as httpx takes it."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._response.aiter_stream():
            yield data

    async def aclose(self) -> None:
        await self._response.aclose()


def _texts(headers: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("ascii").lower(), value.decode("utf-8", "backslashreplace")) for name, value in headers)


def _check_headers(status: int, headers: Sequence[tuple[str, str]]) -> None:
    """Raises ResponseError unless the body is to be read."""
    fields: dict[str, str] = {}
    for name, value in headers:
        fields[name] = f"{fields[name]}, {value}" if name in fields else value  # RFC 9110, 5.3.
    if status != 200:
        location = fields.get("location")
        to = f", a redirect to {location[:100]!a}, which must not be followed" if location else ""
        raise ResponseError(f"status {status}{to}")
    media_type = fields.get("content-type", "")
    if not media_type:
        raise ResponseError("no Content-Type, must be text/plain")
    if media_type.partition(";")[0].strip(" \t").lower() != "text/plain":
        raise ResponseError(f"Content-Type is {media_type[:100]!a}, must be text/plain")
    encoding = fields.get("content-encoding", "identity")
    if encoding.strip(" \t").lower() != "identity":
        raise ResponseError(f"sent {encoding[:100]!a}-encoded unasked; disable compression for this file")


def _read(seen: FetchTrace, record_id: str) -> FetchObservation:
    try:
        parsed, findings = policy.parse(seen.body)
    except policy.PolicyError as error:
        failure = Failure(Stage.POLICY, str(error), ResultType.POLICY_INVALID)
        return PolicyInvalid(failure, record_id, error.fault, error.findings, seen)
    return PolicyFetched(parsed, seen.body.decode("utf-8"), record_id, findings, seen)
