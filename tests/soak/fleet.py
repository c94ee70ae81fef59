"""`make fleet`: relays that share what they know are asked for the same domains, half of them at the same time.

    python -m tests.soak.fleet RELAYS DOMAINS

in the namespace of tests/namespace. First a daemon alone is asked. The exit status is 1 if a relay answers otherwise
than that one, or if there was more than one discovery too many for a hundred domains, as the nameserver and the policy
hosts have seen it.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.soak.internet import NAMESERVER, Nameserver, PolicyHost
from tests.soak.steady import Steady
from tests.world.ca import Ca
from tests.world.daemon import Daemon
from tests.world.fleet import Shared

_AT_ONCE = 2  # Queries to each relay. With more, all of this on one machine takes longer than a relay may wait for.
_SHOWN = 10  # Of the wrong answers, and of the domains that were discovered too often, that are printed.
_TOO_MANY = 100  # There may be one discovery too many for so many domains.


class _Asked:
    """What daemons were asked, and what they answered."""

    def __init__(self) -> None:
        self.replies: list[dict[str, str]] = []  # Of each daemon, by domain.
        self.slowest = 0.0

    async def all_of(self, sockets: Sequence[Path], domains: Sequence[Sequence[str]]) -> None:
        """Ask each daemon for its domains in turn."""
        async with asyncio.TaskGroup() as tasks:
            for socket, own in zip(sockets, domains, strict=True):
                replies: dict[str, str] = {}
                self.replies.append(replies)
                left = iter(own)  # Of all connections.
                for _ in range(_AT_ONCE):
                    tasks.create_task(self._ask(socket, left, replies))

    async def _ask(self, socket: Path, domains: Iterator[str], replies: dict[str, str]) -> None:
        reader, writer = await asyncio.open_unix_connection(socket)
        for domain in domains:
            query, begun = f"postfix {domain}".encode(), time.monotonic()
            writer.write(b"%d:%s," % (len(query), query))
            length = int((await reader.readuntil(b":"))[:-1])
            replies[domain] = (await reader.readexactly(length + 1))[:-1].decode()
            self.slowest = max(self.slowest, time.monotonic() - begun)
        writer.close()


def main() -> int:
    """Ask, and say what came of it."""
    relays, count = int(sys.argv[1]), int(sys.argv[2])
    if "POSTFIX_MTASTS_NAMESPACE" not in os.environ:
        sys.exit("make fleet: takes a network and mounts of its own")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        internet = Steady(folder, count)
        stack.enter_context(Nameserver(internet))
        stack.enter_context(PolicyHost(internet))
        alone = _Asked()
        with relay_of(folder / "alone", internet.ca, None) as daemon:
            asyncio.run(alone.all_of([socket_of(daemon)], [internet.domains]))
        asked, fetched = internet.asked.copy(), internet.fetched.copy()
        internet.asked.clear()
        internet.fetched.clear()
        _say(
            f"alone: {count} domains, {asked.total()} lookups, {fetched.total()} fetches; slowest {alone.slowest:.1f} s"
        )
        server = stack.enter_context(Shared(folder / "server", internet.ca))
        fleet = [stack.enter_context(relay_of(folder / f"{one}", internet.ca, server.config)) for one in range(relays)]
        for daemon in fleet:
            daemon.wait_for("fleet: policies are shared")
        together, begun = _Asked(), time.monotonic()
        asyncio.run(
            together.all_of([socket_of(daemon) for daemon in fleet], [_order(internet, one) for one in range(relays)])
        )
        _say(f"{relays} relays: {internet.asked.total()} lookups, {internet.fetched.total()} fetches;")
        _say(f"    slowest {together.slowest:.1f} s, all of it {time.monotonic() - begun:.0f} s")
        troubles = [line for daemon in fleet for line in daemon.log if "policies are found without it" in line]
        _say(f"    load average {os.getloadavg()[0]:.1f}; relays had trouble with the server {len(troubles)} times")
        for line in troubles[:_SHOWN]:
            _say(f"    {line}")
        wrong = _denied(server) + _wrong(alone.replies[0], together.replies)
    for line in wrong[:_SHOWN]:
        _say(line)
    times = {domain: _times(domain, (asked, internet.asked), (fetched, internet.fetched)) for domain in asked}
    for domain, often in Counter(times).most_common(_SHOWN):
        if often > 1:
            _say(f"{domain}, {internet.kinds[domain]}: {often} times")
    return _judged(len(wrong), Counter(times.values()))


def _order(internet: Steady, relay: int) -> list[str]:
    """The first half is asked for at the same time everywhere, the other one in an order of each relay's own."""
    half = len(internet.domains) // 2
    rest = internet.domains[half:]
    random.Random(relay).shuffle(rest)
    return internet.domains[:half] + rest


def relay_of(folder: Path, ca: Ca, fleet: Mapping[str, object] | None) -> Daemon:
    """A daemon that takes part in a fleet, or in none."""
    folder.mkdir()
    config: dict[str, dict[str, object]] = {
        "server": {"listen": [f"unix:{folder / 'socket'}"], "control": str(folder / "control")},
        "cache": {"path": str(folder / "policies.sqlite")},
        "dns": {"nameservers": [NAMESERVER]},
        "fetch": {"ca_file": str(ca.file), "allow_addresses": ["127.0.0.0/8"]},
        "reply": {"style": "plain", "dane": "off"},
    }
    return Daemon(folder, config | ({"fleet": fleet} if fleet else {}))


def socket_of(daemon: Daemon) -> Path:
    """Where it is asked."""
    return daemon.config.parent / "socket"


def _denied(server: Shared) -> list[str]:
    with server.admin() as admin:
        return [f"the server's ACL has denied {entry['object']}" for entry in admin.acl_log()]


def _wrong(alone: dict[str, str], together: Sequence[dict[str, str]]) -> list[str]:
    return [
        f"{domain}: relay {relay} said {replies.get(domain)!r}, alone {reply!r}"
        for relay, replies in enumerate(together)
        for domain, reply in alone.items()
        if replies.get(domain) != reply
    ]


def _times(domain: str, *counts: tuple[Counter[str], Counter[str]]) -> int:
    """How often a domain was discovered, by what one discovery asks of the world."""
    return max(-(-together[domain] // max(1, alone[domain])) for alone, together in counts)


def _judged(wrong: int, times: Counter[int]) -> int:
    """The status, by how many domains were discovered how many times."""
    _say(f"{wrong} wrong answers")
    _say(", ".join(f"{times[one]} domains discovered {one} times" for one in sorted(times)))
    too_many = sum((one - 1) * times[one] for one in times)
    return int(wrong > 0 or too_many * _TOO_MANY > times.total())


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is its output


if __name__ == "__main__":
    sys.exit(main())
