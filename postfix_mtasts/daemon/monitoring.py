"""Serves metrics, if the configuration or systemd has a socket for them.

The library prometheus_client is imported only then.
"""

import contextlib
import importlib.util
import socket
from collections.abc import Sequence

from postfix_mtasts.cache.fleet import Fleet
from postfix_mtasts.cache.store import Store
from postfix_mtasts.config import Config
from postfix_mtasts.daemon import service, sockets
from postfix_mtasts.daemon.listen import endpoint_of, remove_file
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.scrape import Scrape
from postfix_mtasts.daemon.shadow import Shadow
from postfix_mtasts.daemon.sockets import StartError
from postfix_mtasts.daemon.tally import Extent, Sources

_LIBRARY = "prometheus_client"


def require_library(settings: Config, passed: socket.socket | None = None) -> None:
    """Raises StartError if metrics are wanted, and cannot be made."""
    endpoint = endpoint_of(passed) if passed else settings.metrics.listen
    if endpoint and not importlib.util.find_spec(_LIBRARY):
        what = f"Python has no module {_LIBRARY}: install python3-prometheus-client, or turn metrics off"
        raise StartError(f'metrics.listen = "{endpoint}": {what}')


async def serve_metrics(
    stack: contextlib.AsyncExitStack,
    settings: Config,
    passed: socket.socket | None,
    lookup: Lookup,
    store: Store,
    shadow: Shadow,
    fleet: Fleet | None,
    listeners: Sequence[socket.socket],
) -> None:
    """Serve metrics until the stack is closed. `listeners` are the sockets for Postfix. Raises StartError."""
    require_library(settings, passed)
    listener = sockets.metrics_of(settings, passed)
    if not listener:
        return
    from postfix_mtasts.daemon.metrics import CONTENT_TYPE, Metrics

    async def answers(within: float) -> bool:
        return not any(await service.problems(listeners, within))

    def exceptions() -> Extent:
        holding = lookup.exceptions.holding()
        return Extent(len(holding), min((one.ends_at for one in holding), default=None))

    sources = Sources(answers, exceptions, lambda: shadow.since, lambda: fleet.status() if fleet else None)
    scrape = Scrape(Metrics(lookup, store, sources).text, CONTENT_TYPE)
    await scrape.connections.start(listener)
    stack.push_async_callback(scrape.connections.aclose)
    if listener is not passed:
        stack.callback(remove_file, listener)
