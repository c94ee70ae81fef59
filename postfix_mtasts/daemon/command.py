"""The command postfix-mtasts-daemon: reads the configuration, connects all parts, and handles signals.

    postfix-mtasts-daemon [--config FILE] [--check]

SIGTERM and SIGINT: answer the queries that were received, and exit. SIGHUP: read the tables [reply], [discovery]
and [[exception]] again, and check again which Postfix this machine has. If the configuration has an error, nothing
changes.

Exit status: 0 after SIGTERM, 1 if it could not start, 64 (EX_USAGE of sysexits.h) for a wrong command line,
78 (EX_CONFIG) for a wrong configuration, 130 after SIGINT.
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from postfix_mtasts import __version__, config
from postfix_mtasts.cache.exceptions import path_beside
from postfix_mtasts.cache.fleet import Fleet
from postfix_mtasts.cache.foreign import foreign
from postfix_mtasts.cache.memory import DANE, Memory
from postfix_mtasts.cache.store import Store, StoreError
from postfix_mtasts.config import Config, ConfigError
from postfix_mtasts.config_file import Proxy, read_config, read_proxy
from postfix_mtasts.daemon import refresh, service, sockets
from postfix_mtasts.daemon.control import Control
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import Exceptions
from postfix_mtasts.daemon.listen import endpoint_of, reachable, remove_file
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.monitoring import require_library, serve_metrics
from postfix_mtasts.daemon.reload import Reporter, choose_reply_rules, reload
from postfix_mtasts.daemon.server import Server
from postfix_mtasts.daemon.service import Passed
from postfix_mtasts.daemon.shadow import Shadow
from postfix_mtasts.daemon.sockets import StartError
from postfix_mtasts.daemon.together import Others, fleet_of
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.log import events
from postfix_mtasts.postfix.reply import ReplyRules
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import CaError, tls_context
from postfix_mtasts.remote.proxy import GUARD
from postfix_mtasts.rights import in_the_way

PROGRAM = "postfix-mtasts-daemon"
_STOP_WITHIN = 10.0  # Seconds to answer the queries that were received before the daemon was told to stop.
_FEWEST_FILES = 64  # That may be open at once, or the daemon does not start.
_INTERRUPTED = 128 + signal.SIGINT  # As shells have it.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Tell the error in one line with a hint, and not the whole usage."""
        self.exit(os.EX_USAGE, f"{PROGRAM}: error: {message}\nhint: {PROGRAM} --help\n")


def run(words: list[str]) -> int:
    """Run the daemon with these arguments, and return its exit status."""
    parser = _Parser(PROGRAM, description="Tell Postfix the MTA-STS policies (RFC 8461) of its destinations.")
    parser.add_argument(
        "--config", metavar="FILE", help=f"read this configuration file (default: {config.DEFAULT_PATH} if it exists)"
    )
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    arguments = parser.parse_args(words)
    journal = events.begin(PROGRAM)
    file = arguments.config or config.DEFAULT_PATH
    try:
        settings = read_config(arguments.config)
        tls, proxy = _tls(settings, file), _proxy(settings, file)
        fleet = fleet_of(settings.fleet, file)
        if whose := foreign(pathlib.Path(settings.cache.path)):
            raise ConfigError(f'{file}: cache.path = "{settings.cache.path}": the file is {whose}; name another')
        require_library(settings)
        if arguments.check:
            print(f"{file}: ok" if pathlib.Path(file).exists() else f"no {file}; the defaults: ok")  # noqa: T201 - a result
            if proxy:
                print(f'note: fetch.proxy = "{proxy.url}": {GUARD}')  # noqa: T201 - a result
            return os.EX_OK
        _allow_many_connections()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_run(arguments.config, settings, tls, proxy, fleet))
    except ConfigError as error:
        return _fail(str(error), os.EX_CONFIG, journal=journal)
    except StartError as error:
        return _fail(str(error), 1, journal=journal)
    except KeyboardInterrupt:  # At the very end, when the event loop has given its handlers back.
        return _INTERRUPTED


def _fail(reason: str, status: int, *, journal: bool) -> int:
    if journal:
        events.not_started(reason)
    else:
        print(f"{PROGRAM}: error: {reason}", file=sys.stderr)  # noqa: T201 - a command prints its errors on the terminal
    return status


def _tls(settings: Config, file: str) -> ssl.SSLContext:
    ca_file = settings.fetch.ca_file
    try:
        return tls_context(ca_file)
    except CaError as error:
        if not ca_file:  # The configuration is not at fault, and somebody may install them.
            raise StartError(f'fetch.ca_file = "": {error}') from error
        raise ConfigError(
            f'{file}: fetch.ca_file = "{ca_file}": {in_the_way(pathlib.Path(ca_file)) or error}'
        ) from error


def _proxy(settings: Config, file: str) -> Proxy | None:
    try:
        return read_proxy(settings.fetch)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _allow_many_connections() -> None:
    """Raise the limit of open files, because each Postfix service may keep a hundred connections or more open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if 0 <= most < _FEWEST_FILES:
        how = f"raise the limit to {_FEWEST_FILES} at least (`ulimit -Hn`, LimitNOFILE=)"
        raise StartError(f"this process may open {most} files only: {how}")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the event loop of uvloop if it is installed, or None for that of asyncio."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


async def _run(
    path: str | None, settings: Config, tls: ssl.SSLContext, proxy: Proxy | None, fleet: Fleet | None
) -> int:
    stop, hang_up, interrupted = _handle_signals()
    async with contextlib.AsyncExitStack() as stack:
        passed = sockets.passed()
        theirs, own = list(map(endpoint_of, passed.socketmap)), sockets.not_passed(settings.server, passed)
        served = [*theirs, *own]
        store = await _store(settings)
        stack.push_async_callback(store.aclose)
        rules, *why = await choose_reply_rules(settings, served)
        lookup, shadow, control = await _service(stack, settings, tls, proxy, store, rules, fleet)
        listeners = [*passed.socketmap, *sockets.listen_on(own, settings.server.socket_mode, theirs)]
        server = Server(lookup.at_once, lookup.reply)
        server.start(listeners)
        stack.push_async_callback(server.aclose, _STOP_WITHIN)
        for listener in listeners[len(passed.socketmap) :]:
            stack.callback(remove_file, listener)
        await _start_control(stack, control, sockets.control_of(settings.server, passed.control), passed)
        await serve_metrics(stack, settings, passed.metrics, lookup, store, shadow, fleet, listeners)
        reporter = Reporter(control, served, path or config.DEFAULT_PATH)
        reloading = reload(path, settings, lookup, shadow, reporter, hang_up)
        work = [store.run(), refresh.run(store, lookup, time.time), shadow.run(), lookup.exceptions.run(), reloading]
        work += [fleet.run()] if fleet else []
        if period := service.watchdog_period():
            work.append(service.feed_watchdog(period, listeners))
        background = [asyncio.create_task(one) for one in work]
        stack.callback(lambda: [task.cancel() for task in background])
        events.event_loop(type(asyncio.get_running_loop()).__module__.partition(".")[0])
        reporter.chosen(rules, *why)
        sockets.warn_of_open(served)
        events.ready(f"smtp_tls_policy_maps = socketmap:{reachable(served[0])}:postfix", enforce=rules.enforce)
        reporter.ready()
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([stopping, *background], return_when=asyncio.FIRST_COMPLETED)
        events.stopping()
        service.notify("STOPPING=1", "STATUS=answering the last queries before it stops")
        for task in done:
            task.result()  # A background task ends only by a bug. Raise its exception, so that systemd restarts us.
    return _INTERRUPTED if interrupted.is_set() else os.EX_OK


def _handle_signals() -> tuple[asyncio.Event, asyncio.Event, asyncio.Event]:
    """Return what is set by a signal to stop, by SIGHUP, and by SIGINT, which also is a signal to stop."""
    stop, hang_up, interrupted = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        stop.set()

    for number, handler in ((signal.SIGTERM, stop.set), (signal.SIGINT, interrupt), (signal.SIGHUP, hang_up.set)):
        asyncio.get_running_loop().add_signal_handler(number, handler)
    return stop, hang_up, interrupted


async def _store(settings: Config) -> Store:
    store = Store(settings.cache.path, limit=settings.cache.memory)
    try:
        await store.open()
    except StoreError as error:
        why = in_the_way(pathlib.Path(settings.cache.path), write=True) or error
        raise StartError(f'cache.path = "{settings.cache.path}": {why}') from error
    return store


async def _service(
    stack: contextlib.AsyncExitStack,
    settings: Config,
    tls: ssl.SSLContext,
    proxy: Proxy | None,
    store: Store,
    rules: ReplyRules,
    fleet: Fleet | None,
) -> tuple[Lookup, Shadow, Control]:
    cache, fetch, dns = settings.cache, settings.fetch, settings.dns
    resolver = Resolver(dns.nameservers, timeout=dns.timeout)
    policies, notes, limit = cache.policies_in_memory, cache.no_policies_in_memory, cache.memory
    memory = Memory(policies=policies, notes=notes, limit=limit)
    dane = Dane(resolver, notes, octets=limit * DANE)
    others = Others(fleet) if fleet else None
    if fleet:
        stack.push_async_callback(fleet.aclose)
    lookup = Lookup(
        store,
        memory,
        resolver,
        Fetcher(resolver, tls, timeout=fetch.timeout, allow_addresses=fetch.allow_addresses, proxy=proxy),
        dane,
        rules,
        Exceptions(path_beside(cache.path)),
        answer_within=settings.server.answer_within,
        others=others,
    )
    if others:
        others.follow(lookup.learn, memory.policies)
    stack.push_async_callback(lookup.aclose)
    await lookup.exceptions.load(settings.exception)
    stack.push_async_callback(lookup.exceptions.save)
    shadow = Shadow(settings, lookup, resolver, dane)
    stack.push_async_callback(shadow.aclose)
    await shadow.follow()
    return lookup, shadow, Control(lookup, store, memory, dane, shadow, fleet)


async def _start_control(
    stack: contextlib.AsyncExitStack, control: Control, listener: socket.socket | None, passed: Passed
) -> None:
    if not listener:
        return
    await control.connections.start(listener)
    stack.push_async_callback(control.connections.aclose)
    if listener is not passed.control:
        stack.callback(remove_file, listener)
