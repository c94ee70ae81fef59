"""Check the daemon for a monitoring system: a plugin for Nagios and compatible systems.

    MTA-STS OK - answers Postfix; 12 policies, 1 not renewed|time=0.002s policies=12 not_renewed=1 …

    CRITICAL  2  the daemon does not answer a query like Postfix's within 5 seconds on one of its sockets; or the
                 nameservers do not answer; or three quarters of the discoveries in the last ten minutes have failed
    WARNING   1  a quarter of these discoveries has failed; or a policy that could not be renewed is about to expire:
                 less than a quarter of its max_age is left, and the log has an error; or the daemon cannot write the
                 database, or has begun it anew within a day; or no policy is enforced (reply.enforce = false); or an
                 exception ends within a week; or the file with exceptions cannot be used; or the control socket does
                 not work
    OK        0  none of these; other policies that could not be renewed are only counted, because usually only the
                 owner of the domain can help
    UNKNOWN   3  the configuration is wrong

The running daemon says which sockets it serves. One that is for Postfix's user and not for ours, such as that of
postfix-mtasts-chroot.socket, is left out then. If it cannot be asked, they are those of `server.listen`. With
`server.control = ""`, the command checks only these and the nameservers.
"""

import argparse
import asyncio
import enum
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from postfix_mtasts.config import Config, ConfigError, Endpoint, OnFailure
from postfix_mtasts.config_file import read_config
from postfix_mtasts.counting import counted
from postfix_mtasts.daemon.exceptions import WARN_WITHIN
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.log.events import span
from postfix_mtasts.query.output import JSON, Output, QueryError, Status
from postfix_mtasts.query.running.client import NO_DOMAIN, NoDaemon, ask_as_postfix, running
from postfix_mtasts.query.running.render import iso

# With the three seconds for the control socket less than ten, after which monitoring systems stop a plugin.
_ANSWER_WITHIN = 5.0  # Seconds.
_FEW = 5  # Discoveries that fail; fewer may be the fault of their domains.
_SOME, _MOST = 0.25, 0.75  # The share of discoveries that fail.
_DAY = 86400.0  # Seconds for which a new database is told of.
_NOT_FOUND = "NOTFOUND "


class Level(enum.IntEnum):
    """The exit status of a monitoring plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """Why a socket did not answer a query like Postfix's, or nothing; `closed` if this user may not use it."""

    endpoint: Endpoint
    reason: str = ""
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """A level, the reasons for it, and numbers for graphs."""

    level: Level
    reasons: tuple[str, ...]
    numbers: Mapping[str, str]

    def __str__(self) -> str:
        numbers = " ".join(f"{name}={value}" for name, value in self.numbers.items())
        # The first bar separates the text from the numbers.
        text = "; ".join(self.reasons).replace("|", "/")
        return f"MTA-STS {self.level.name} - {text}{'|' if numbers else ''}{numbers}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: there are none."""


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Run the subcommand."""
    status: JSON | str | None = None
    try:
        settings = read_config(arguments.config)
    except ConfigError as error:
        health = Health(Level.UNKNOWN, (str(error),), {})
    else:
        health, status = look(settings)
    if output.json:
        daemon = None if status is None or isinstance(status, str) else _document(status)
        output.document({"status": health.level.name, "reasons": health.reasons, "daemon": daemon})
    else:
        output.text(str(health))
    return Status(health.level)


def look(settings: Config) -> tuple[Health, JSON | str | None]:
    """The health of the running daemon, and its status document, or why it is missing, or None."""
    status, sockets = _status(settings)
    seen, no_dns, seconds = asyncio.run(_check(settings, sockets))
    return judge(seen, no_dns, seconds, status, time.time()), status


def judge(seen: Sequence[Seen], no_dns: str, seconds: float, status: JSON | str | None, now: float) -> Health:
    """The health that follows from what was observed at the time `now`.

    `seen` has what was seen of each socket; those that answered did so within `seconds`. `no_dns` is the reason why no
    nameserver answered, or empty. `status` is the daemon's status document (`daemon.control`), the reason why it is
    missing, or None without a control socket.
    """
    # A daemon that says that it serves a socket is not dead because the socket is for others.
    closed = [one.endpoint for one in seen if one.closed] if isinstance(status, dict) else []
    unanswered = [one.reason for one in seen if one.reason and one.endpoint not in closed]
    numbers = {} if unanswered else {"time": f"{seconds:.3f}s"}
    critical, warning = [*unanswered, *([no_dns] if no_dns else [])], list[str]()
    fine = [] if unanswered else ["answers Postfix" if len(closed) < len(seen) else "runs"]
    fine += [f"not asked on {endpoint}, which this user may not use" for endpoint in closed]
    match status:
        case str(reason):
            warning.append(reason)
        case None:
            pass
        case _:
            share = _failed_share(status["discoveries"])
            if share >= _SOME:
                (critical if share >= _MOST else warning).append(_discoveries(status["discoveries"]))
            warning += [*_troubles(status, now), *_exceptions(status["exceptions"], now)]
            fine += _counts(status)
            numbers |= _numbers(status)
    level = Level.CRITICAL if critical else Level.WARNING if warning else Level.OK
    return Health(level, (*critical, *warning, *fine), numbers)


def _failed_share(discoveries: JSON) -> float:
    """Which part of the discoveries has failed, from 0 to 1. A few that fail count as none."""
    failed = int(discoveries["failed"])
    return failed / int(discoveries["ended"]) if failed >= _FEW else 0.0


def _discoveries(counts: JSON) -> str:
    share = f"{counts['failed']:,} of {counts['ended']:,} discoveries in the last {counts['minutes']} minutes failed"
    return f"{share}, the last with {counts['last_failure']}"


def _troubles(status: JSON, now: float) -> list[str]:
    database, policies = status["database"], status["policies"]
    troubles = []
    if since := status["shadow_since"]:
        hint = "`postfix-mtasts-query shadow` says what would stop"
        troubles.append(f"no policy is enforced since {(iso(since) or '')[:10]} (reply.enforce = false): {hint}")
    if (fleet := status.get("fleet")) and not fleet["works"]:
        since = f" for {span(max(0.0, now - fleet['trouble_since']))}" if fleet["trouble_since"] else ""
        why = fleet["trouble"] or "it was not reached yet"
        troubles.append(f"the fleet's server has not worked{since}: {why}; policies are found without it")
    if ending := policies["ending"]:
        left = policies["first_ends_at"] - now
        when = f"in {span(left)}" if left > 0 else "now"
        what = counted(ending, "policy that could not be renewed expires", "policies that could not be renewed expire")
        troubles.append(f"{what} {when if ending == 1 else f'soon, the first {when}'}")
    if not database["writable"]:
        since = span(max(0.0, now - database["trouble_since"]))
        waiting = database["pending_writes"]
        troubles.append(f"the database has not worked for {since}: {database['trouble']}; pending writes: {waiting}")
    if database["begun_anew"] and now - database["begun_anew_at"] < _DAY:
        ago = span(max(0.0, now - database["begun_anew_at"]))
        troubles.append(f"the database was begun anew {ago} ago, and has what was in memory: {database['begun_anew']}")
    return troubles


def _exceptions(exceptions: JSON, now: float) -> Iterator[str]:
    """Exceptions that end soon, and why those that were added by command may be unknown."""
    for one in exceptions["first_to_end"]:
        if one["ends_at"] - now <= WARN_WITHIN:
            yield f"the exception for {one['domain']} ends in {span(max(0.0, one['ends_at'] - now))}: {one['reason']}"
    if exceptions["trouble"]:
        yield f"exceptions that were added by command: {exceptions['trouble']}"


def _counts(status: JSON) -> list[str]:
    policies = status["policies"]
    stored, failing, holding = policies["stored"], policies["not_renewed"], status["exceptions"]["holding"]
    exceptions = [counted(holding, "exception")] if holding else []
    if stored is None:
        return exceptions
    not_renewed = [f"{failing:,} not renewed"] if failing else []
    return [", ".join([counted(stored, "policy", "policies"), *not_renewed, *exceptions])]


def _numbers(status: JSON) -> dict[str, str]:
    policies = status["policies"]
    numbers = {
        "policies": policies["stored"],
        "not_renewed": policies["not_renewed"],
        "ending": policies["ending"],
        "pending_writes": status["database"]["pending_writes"],
        "discoveries": status["discoveries"]["ended"],
        "failed_discoveries": status["discoveries"]["failed"],
        "exceptions": status["exceptions"]["holding"],
    }
    return {name: str(number) for name, number in numbers.items() if number is not None}


async def _check(settings: Config, sockets: Sequence[Endpoint]) -> tuple[list[Seen], str, float]:
    """What is seen of each socket, why DNS does not answer, and the seconds that the answers took."""
    resolver = Resolver(settings.dns.nameservers, timeout=min(settings.dns.timeout, _ANSWER_WITHIN))
    nameservers = asyncio.create_task(_why_no_dns(resolver, settings.discovery.on_failure))
    begin = time.monotonic()
    seen = await asyncio.gather(*map(_look, sockets))
    seconds = time.monotonic() - begin
    return seen, await nameservers, seconds


async def _why_no_dns(resolver: Resolver, on_failure: OnFailure) -> str:
    """Why no nameserver answers, and what follows from that; empty if one does."""
    try:
        await resolver.mx_hosts("")  # The root zone, which every resolver knows.
    except DnsError as error:
        deferred = on_failure is OnFailure.TEMP
        follows = "is deferred" if deferred else "is sent without a policy"
        return f"DNS does not answer: {error}: mail to new domains {follows}"
    return ""


async def _look(endpoint: Endpoint) -> Seen:
    try:
        reply = (await ask_as_postfix(endpoint, NO_DOMAIN, _ANSWER_WITHIN)).reply
    except QueryError as error:
        return Seen(endpoint, str(error), closed=isinstance(error.__cause__, PermissionError))
    return Seen(endpoint, "" if reply == _NOT_FOUND else f"{endpoint} answers {reply[:60]!a} instead of NOTFOUND")


def _status(settings: Config) -> tuple[JSON | str | None, Sequence[Endpoint]]:
    """What the daemon says of itself, why it cannot be asked, or None without a control socket; and its sockets."""
    if not settings.server.control:
        return None, settings.server.listen
    try:
        daemon = running(settings)
    except NoDaemon as error:
        return f"{error}: {error.remedy}".removesuffix(": "), settings.server.listen
    except QueryError as error:
        return str(error), settings.server.listen
    return daemon.status, daemon.sockets


def _document(status: JSON) -> JSON:
    """The daemon's status document (`daemon.control`), with times in ISO 8601."""
    database, policies, exceptions = status["database"], status["policies"], status["exceptions"]
    return {
        **status,
        "started_at": iso(status["started_at"]),
        "configured_at": iso(status["configured_at"]),
        "shadow_since": iso(status["shadow_since"]),
        "database": {
            **database,
            "trouble_since": iso(database["trouble_since"]),
            "begun_anew_at": iso(database["begun_anew_at"]),
        },
        "policies": {**policies, "first_ends_at": iso(policies["first_ends_at"])},
        "exceptions": {
            **exceptions,
            "since": iso(exceptions.get("since")),
            "first_to_end": [{**one, "ends_at": iso(one["ends_at"])} for one in exceptions["first_to_end"]],
        },
    }
