"""The policy file over HTTPS, through h11 (RFC 8461, 3.3).

One GET of https://mta-sts.DOMAIN/.well-known/mta-sts.txt within one deadline, on a connection of its own. Status 200,
text/plain, at most 64 KiB, or it has failed; no redirect, cookie, cache, proxy or content encoding. Every failure
becomes a `Failure`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence

import h11

from postfix_mtasts import __version__
from postfix_mtasts.config import IpNetwork
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.remote.network import HTTPS_PORT, Network, NetworkError, Stream, in_words
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

MAX_POLICY_SIZE = 65_536  # Octets (RFC 8461, 3.3 suggests 64 KB).
_PATH = "/.well-known/mta-sts.txt"
_HEADERS = [
    ("User-Agent", f"postfix-mtasts/{__version__}"),
    ("Accept", "text/plain"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
]
_READ = 65_536  # Octets at once.
_MAX_HEADER = 102_400  # Octets of all header fields.


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
        port: int = HTTPS_PORT,
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._timeout = timeout
        self._allow_addresses = allow_addresses
        self._port = port

    async def fetch(self, domain: PolicyDomain, record_id: str) -> FetchObservation:
        """The policy of a domain whose record has this id, or why there is none."""
        network = Network(self._resolver, self._allow_addresses)
        seen = network.trace
        try:
            async with asyncio.timeout(self._timeout):
                seen.body = await self._get(domain.policy_host(), network)
        except TimeoutError:
            failure = Failure(seen.stage, f"not done within {self._timeout:g} seconds")
        except ssl.SSLCertVerificationError as error:
            failure = Failure(Stage.CERTIFICATE, in_words(error), ResultType.WEBPKI_INVALID)
        except (_ResponseError, NetworkError) as error:
            failure = Failure(seen.stage, str(error))
        except (OSError, h11.RemoteProtocolError) as error:
            failure = Failure(seen.stage, in_words(error))
        else:
            network.enter(Stage.POLICY)
            return _read(seen, record_id)
        finally:
            network.abort()
        return FetchFailed(failure, record_id, seen)

    async def _get(self, host: str, network: Network) -> bytes:
        stream = await network.connect_tls(host, self._port, self._tls)
        port = "" if self._port == HTTPS_PORT else f":{self._port}"
        body = bytearray()
        async for event in _exchange(
            stream, h11.Request(method="GET", target=_PATH, headers=[("Host", host + port), *_HEADERS])
        ):
            if isinstance(event, h11.Response):
                network.trace.status = event.status_code
                network.trace.headers = tuple(
                    (name.decode(), value.decode("utf-8", "backslashreplace")) for name, value in event.headers
                )
                _check_headers(event.status_code, network.trace.headers)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_POLICY_SIZE:
                    raise _ResponseError(f"more than {MAX_POLICY_SIZE} octets")
        return bytes(body)


async def _exchange(stream: Stream, request: h11.Request) -> AsyncIterator[h11.Event]:
    """The response to a request, part by part.

    Raises _ResponseError, h11.RemoteProtocolError and what `stream` raises.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER)
    await stream.write(connection.send(request) + connection.send(h11.EndOfMessage()))
    while True:
        event = connection.next_event()
        if isinstance(event, h11.EndOfMessage):
            return
        if isinstance(event, h11.Event):
            yield event
            continue
        data = await stream.read(_READ)
        if not data and connection.their_state is h11.SEND_RESPONSE:
            raise _ResponseError("server disconnected without sending a response")
        connection.receive_data(data)


def _check_headers(status: int, headers: Sequence[tuple[str, str]]) -> None:
    """Raises _ResponseError unless the body is to be read."""
    fields: dict[str, str] = {}
    for name, value in headers:
        fields[name] = f"{fields[name]}, {value}" if name in fields else value  # RFC 9110, 5.3.
    if status != 200:
        location = fields.get("location")
        to = f", a redirect to {location[:100]!a}, which must not be followed" if location else ""
        raise _ResponseError(f"status {status}{to}")
    media_type = fields.get("content-type", "")
    if media_type.partition(";")[0].strip(" \t").lower() != "text/plain":
        raise _ResponseError(f"media type {media_type[:100]!a}, not text/plain")
    encoding = fields.get("content-encoding", "identity")
    if encoding.strip(" \t").lower() != "identity":
        raise _ResponseError(f"content encoding {encoding[:100]!a}, which was not asked for")


def _read(seen: FetchTrace, record_id: str) -> FetchObservation:
    try:
        parsed, findings = policy.parse(seen.body)
    except policy.PolicyError as error:
        failure = Failure(Stage.POLICY, str(error), ResultType.POLICY_INVALID)
        return PolicyInvalid(failure, record_id, error.fault, error.findings, seen)
    return PolicyFetched(parsed, seen.body.decode("utf-8"), record_id, findings, seen)
