"""What is wrong with this machine whatever Postfix and the daemon do.

That is its clock, the CAs that the daemon trusts, and the proxy that it fetches policies through.
"""

import asyncio
import datetime
import pathlib
from collections.abc import Iterator

import postfix_mtasts
from postfix_mtasts.config import Config, ConfigError
from postfix_mtasts.config_file import read_proxy
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.remote.network import HTTPS_PORT, CaError, Network, in_words, tls_context
from postfix_mtasts.remote.proxy import GUARD, RefusedError, connected
from postfix_mtasts.remote.stream import NetworkError

_PROXY_WITHIN = 10.0  # Seconds.
_SOME_HOST = "example.com"  # It is reserved, and has a web server (RFC 2606, 3).


def check_clock(now: float) -> Iterator[Finding]:
    """Without a time server, only one thing is certain: it is later than when this program was built."""
    earliest = pathlib.Path(postfix_mtasts.__file__).stat().st_mtime
    if now < earliest:
        shown, then = (datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (now, earliest))
        what = f"the clock says {shown:%Y-%m-%d %H:%M} UTC, before this program was built ({then:%Y-%m-%d %H:%M} UTC)"
        why = "certificates look as if they were not valid yet, and policies expire at the wrong time"
        yield Finding("clock", Status.ERROR, what, why, "run", "timedatectl set-ntp true")


def check_ca_file(settings: Config) -> Iterator[Finding]:
    """The CAs by which the daemon verifies policy hosts."""
    try:
        tls_context(settings.fetch.ca_file)
    except CaError as error:
        what = f'fetch.ca_file = "{settings.fetch.ca_file}": {error}'
        yield Finding("config", Status.ERROR, what, "the daemon does not start")


async def check_proxy(settings: Config, resolver: Resolver) -> list[Finding]:
    """Have the proxy connect to a host, if there is a proxy."""
    try:
        proxy = read_proxy(settings.fetch)
    except ConfigError as error:
        return [Finding("config", Status.ERROR, str(error), "the daemon does not start")]
    if not proxy:
        return []
    network = Network(resolver, ())
    what = f"policies are fetched through the proxy {proxy.url}"
    why = "policies cannot be fetched, and mail to domains without a cached policy is sent unprotected"
    try:
        async with asyncio.timeout(_PROXY_WITHIN):
            await connected(network, proxy, _SOME_HOST, HTTPS_PORT)
    except TimeoutError:
        return [Finding("proxy", Status.ERROR, f"proxy {proxy.url}: no answer within {_PROXY_WITHIN:g} s", why)]
    except RefusedError as error:
        return [Finding("proxy", Status.WARNING, f"proxy {error}", "it may refuse policy hosts too: see its log")]
    except (NetworkError, OSError) as error:
        return [Finding("proxy", Status.ERROR, f"proxy {in_words(error)}", why)]
    finally:
        network.abort()
    return [Finding("proxy", Status.OK, what, GUARD)]
