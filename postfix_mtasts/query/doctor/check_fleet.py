"""Whether the server of [fleet] can be used: its URL, its TLS, its clock, and what its users may do."""

import asyncio
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from postfix_mtasts.config import Config, ConfigError
from postfix_mtasts.config_fleet import FleetPlace, read_fleet
from postfix_mtasts.log.events import span
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.query.running.client import Running
from postfix_mtasts.sts.elsewhere import MAX_SKEW

if TYPE_CHECKING:
    from postfix_mtasts.cache.fleet_rights import Inspection  # It needs redis-py, which may not be installed.

_WITHOUT = "policies are found without it, and are not shared"
_FOR_ITSELF = "this relay finds all policies for itself"
# What to do about what redis-py, TLS or the server says, by a part of that in lower case. The first that fits counts.
_REMEDIES = (
    ("certificate has expired", "renew its certificate"),
    ("certificate verify failed", "its certificate must be for the host that is named, and from a CA in fleet.ca_file"),
    ("username-password", "compare fleet.credentials with the hash of that user in users.acl of the server"),
    ("wrongpass", "compare fleet.credentials with the hash of that user in users.acl of the server"),
    ("authentication required", "it asks for a password: set fleet.credentials"),
    ("knows no server", "compare fleet.name with `sentinel monitor` in sentinel.conf"),
    ("read only replica", "it is a replica: name its master, or the sentinels of both"),
    ("maxmemory", "raise its maxmemory"),
    ("misconf", 'see why it cannot write to its disk, or set `save ""`'),
    ("", "see whether it runs, and whether a firewall is in between"),
)
_ACL = "users.acl of the server"


async def check_fleet(settings: Config, daemon: Running | None, clock: float) -> list[Finding]:
    """Look at the server as the daemon does, if there is a fleet. `clock` is what this machine's clock says."""
    try:
        place = read_fleet(settings.fleet)
        if not place:
            return []
        from postfix_mtasts.cache.fleet_jobs import FleetError
        from postfix_mtasts.cache.fleet_rights import inspect
    except ConfigError as error:
        if os.geteuid() != 0 and _is_forbidden(settings.fleet.credentials):
            why = "the server of the fleet cannot be checked"
            return [Finding("fleet", Status.WARNING, str(error), why, "run", "sudo postfix-mtasts-query doctor")]
        return [Finding("config", Status.ERROR, str(error), "the daemon does not start")]
    except ImportError:
        what = "[fleet] needs a library of Python, redis"
        return [Finding("config", Status.ERROR, what, "the daemon does not start", "run", "apt install python3-redis")]
    try:
        seen = await asyncio.to_thread(inspect, place)
    except FleetError as error:
        remedy = next(remedy for part, remedy in _REMEDIES if part in str(error).lower())
        return [Finding("fleet", Status.WARNING, f"the fleet's server {place}: {error}", f"{_WITHOUT}; {remedy}")]
    found = [*judged(place, seen, clock)] or [*_told(place, daemon)]
    what, why = f"policies are shared on {place}", "its user may do what is needed there, and no more"
    return found or [Finding("fleet", Status.OK, what, why)]


def _is_forbidden(file: str) -> bool:
    return bool(file) and pathlib.Path(file).exists() and not os.access(file, os.R_OK)


def judged(place: FleetPlace, seen: "Inspection", clock: float) -> Iterator[Finding]:
    """What is wrong with a server that answers."""
    from postfix_mtasts.cache.fleet_connection import TIMEOUT
    from postfix_mtasts.cache.fleet_rights import acl_line

    user = f"user {place.user}" if place.user else "the user without a name"
    if seen.lacking:
        what = f"the fleet's server {place}: {user} may not use {', '.join(seen.lacking)}"
        yield Finding("fleet-rights", Status.WARNING, what, _WITHOUT, _ACL, acl_line(place))
    if seen.clock is not None and abs(ahead := clock - seen.clock) > MAX_SKEW:
        which = "ahead of" if ahead > 0 else "behind"
        what = f"the clock of this machine is {span(abs(ahead))} {which} that of the fleet's server {place}"
        why = f"{_FOR_ITSELF}; set the wrong one of them"
        yield Finding("fleet-clock", Status.WARNING, what, why, "run", "timedatectl timesync-status")
    if seen.seconds > TIMEOUT:
        what = f"the fleet's server {place} answers within {seen.seconds:.1f} s; the daemon waits for {TIMEOUT:g} s"
        yield Finding("fleet", Status.WARNING, what, f"{_WITHOUT}; it must be near, and not be busy with other things")
    if seen.too_much:
        what = f"the fleet's server {place}: {user} may {', '.join(seen.too_much)}"
        why = "whoever has the password of a relay may do this, and it is not needed"
        yield Finding("fleet-rights", Status.WARNING, what, why, _ACL, acl_line(place))
    for host in seen.open_sentinels:
        what = f"the sentinel {host} asks for no password"
        why = "whoever reaches it can name a server of his own, and so decide where mail goes"
        line = "aclfile FILE, with the users of contrib/valkey/sentinel.acl"
        yield Finding("fleet-sentinel", Status.WARNING, what, why, "sentinel.conf", line)


def _told(place: FleetPlace, daemon: Running | None) -> Iterator[Finding]:
    """What the running daemon says of a server with which nothing is wrong from here."""
    if not daemon:
        return
    fleet = daemon.status.get("fleet")
    if not fleet:
        what = f"the running daemon does not share policies on {place}"
        why = "[fleet] was configured after it was started"
        yield Finding("restart", Status.WARNING, what, why, "run", "systemctl restart postfix-mtasts")
    elif not fleet["works"] and fleet["trouble"]:
        what = f"the daemon cannot use the fleet's server {place}: {fleet['trouble']}"
        yield Finding("fleet", Status.WARNING, what, f"{_WITHOUT}; it tries again every half a minute")
