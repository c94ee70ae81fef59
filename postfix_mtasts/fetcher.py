"""The policy file over HTTPS, through httpx (RFC 8461, 3.3).

One GET of https://mta-sts.DOMAIN/.well-known/mta-sts.txt within one deadline. Status 200, text/plain, at most 64 KiB,
or it has failed; no redirect, cookie, cache, proxy or content encoding. Every failure becomes a `Failure`, the same one
with httpx 0.23 and 0.28.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import httpcore
import httpx

from postfix_mtasts import __version__, policy
from postfix_mtasts.config import IpNetwork
from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.network import Network, NetworkError, in_words
from postfix_mtasts.observation import (
    Exchange,
    Failure,
    FetchFailed,
    FetchObservation,
    PolicyFetched,
    PolicyInvalid,
    ResultType,
    Stage,
)
from postfix_mtasts.resolver import Resolver

MAX_POLICY_SIZE = 65_536  # Octets (RFC 8461, 3.3 suggests 64 KB).
_PATH = "/.well-known/mta-sts.txt"
_HEADERS = {
    "User-Agent": f"postfix-mtasts/{__version__}",
    "Accept": "text/plain",
    "Accept-Encoding": "identity",
    "Connection": "close",
}


class _ResponseError(Exception):
    """The policy host answered, but not with a policy file."""


class Fetcher:
    """Fetches policies, each in at most `timeout` seconds.

    Hosts are checked with `tls`; `allow_addresses` are networks they may be in beside the global addresses.
    """

    def __init__(
        self,
        resolver: Resolver,
        tls: ssl.SSLContext,
        *,
        timeout: float,
        allow_addresses: Sequence[IpNetwork] = (),
        port: int = 443,
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._timeout = timeout
        self._allow_addresses = allow_addresses
        self._port = port

    async def fetch(self, domain: PolicyDomain, record_id: str) -> FetchObservation:
        """The policy of a domain whose record has this id, or why there is none."""
        network = Network(self._resolver, self._allow_addresses)
        seen = network.exchange
        try:
            async with asyncio.timeout(self._timeout):
                seen.body = await self._get(domain.policy_host(), network)
        except TimeoutError:
            failure = Failure(seen.stage, f"not done within {self._timeout:g} seconds")
        except ssl.SSLCertVerificationError as error:
            failure = Failure(Stage.CERTIFICATE, in_words(error), ResultType.WEBPKI_INVALID)
        except (_ResponseError, NetworkError) as error:
            failure = Failure(seen.stage, str(error))
        except (OSError, httpcore.RemoteProtocolError) as error:
            failure = Failure(seen.stage, in_words(error))
        else:
            network.enter(Stage.POLICY)
            return _read(seen, record_id)
        finally:
            await network.aclose()
        return FetchFailed(failure, record_id, seen)

    async def _get(self, host: str, network: Network) -> bytes:
        url = f"https://{host}:{self._port}{_PATH}"
        async with (
            httpx.AsyncClient(transport=_Transport(self._tls, network), trust_env=False) as client,
            client.stream("GET", url, headers=_HEADERS) as response,
        ):
            network.exchange.status = response.status_code
            network.exchange.headers = tuple(response.headers.multi_items())
            _check_headers(response)
            body = bytearray()
            async for data in response.aiter_raw():
                body += data
                if len(body) > MAX_POLICY_SIZE:
                    raise _ResponseError(f"more than {MAX_POLICY_SIZE} octets")
            return bytes(body)


def _check_headers(response: httpx.Response) -> None:
    """Raises _ResponseError unless the body is to be read."""
    if response.status_code != 200:
        location = response.headers.get("Location")
        to = f", a redirect to {location[:100]!a}, which must not be followed" if location else ""
        raise _ResponseError(f"status {response.status_code}{to}")
    media_type = response.headers.get("Content-Type", "")
    if media_type.partition(";")[0].strip(" \t").lower() != "text/plain":
        raise _ResponseError(f"media type {media_type[:100]!a}, not text/plain")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip(" \t").lower() != "identity":
        raise _ResponseError(f"content encoding {encoding[:100]!a}, which was not asked for")


def _read(seen: Exchange, record_id: str) -> FetchObservation:
    try:
        parsed, findings = policy.parse(seen.body)
    except policy.PolicyError as error:
        failure = Failure(Stage.POLICY, str(error), ResultType.POLICY_INVALID)
        return PolicyInvalid(failure, record_id, error.fault, error.findings, seen)
    return PolicyFetched(parsed, seen.body.decode("utf-8"), record_id, findings, seen)


class _Transport(httpx.AsyncBaseTransport):
    """One httpcore connection behind an httpx client: httpx's own transport has a pool, and takes no network."""

    def __init__(self, tls: ssl.SSLContext, network: Network) -> None:
        self._tls = tls
        self._network = network

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request, and the beginning of its response. Raises what `network` and httpcore raise."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        connection = httpcore.AsyncHTTPConnection(
            url.origin,
            self._tls,
            # httpcore 0.16 keeps the base class elsewhere than 1.0; neither asks for more than the methods.
            network_backend=cast("httpcore.AsyncNetworkBackend", self._network),
        )
        response = await connection.handle_async_request(
            httpcore.Request(request.method, url, headers=request.headers.raw, content=request.stream)
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response.stream))


class _Body(httpx.AsyncByteStream):
    """A response body of httpcore as httpx takes it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)
