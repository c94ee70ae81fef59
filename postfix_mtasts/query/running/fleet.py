"""Show which relays share what they know with this one, and how much that is.

The command asks the running daemon over its control socket, and the daemon asks the server of [fleet].

Exit status: 0 if the server works, 69 if it does not, or the daemon cannot be asked.
"""

import argparse
import time

from postfix_mtasts.config_file import read_config
from postfix_mtasts.counting import counted, times
from postfix_mtasts.log.events import span
from postfix_mtasts.query.output import JSON, Output, QueryError, Status
from postfix_mtasts.query.running.client import NoDaemon, ask
from postfix_mtasts.query.running.render import iso

_PATIENCE = 10.0  # Seconds: the server counts what is shared.


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: there are none."""


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Run the subcommand. Raises QueryError and ConfigError."""
    settings = read_config(arguments.config)
    try:
        (fleet,) = ask(settings.server.control, {"request": "fleet"}, _PATIENCE)
    except NoDaemon as error:
        raise QueryError(f"the daemon cannot be reached: {error}", error.remedy) from error
    if output.json:
        relays = [one | {"since": iso(one["since"]), "seen": iso(one["seen"])} for one in fleet["relays"]]
        output.document({**fleet, "relays": relays, "since": iso(fleet["since"])})
    else:
        for line in described(fleet, time.time()):
            output.text(line)
    return Status.OK


def described(fleet: JSON, now: float) -> list[str]:
    """What the daemon says of the fleet, in lines."""
    domains, relays = fleet["domains"], fleet["relays"]
    since = f", since {iso(fleet['since'])}" if fleet["since"] else ""
    lines = [f"{counted(domains, 'domain is', 'domains are')} shared on {fleet['server']}{since}"]
    lines += [
        f"{one['relay']!a}: version {one['version']!a}, since {iso(one['since'])}, "
        f"seen {span(max(0.0, now - one['seen']))} ago"
        for one in sorted(relays, key=lambda one: (one["relay"], one["since"]))
    ]
    asked, found, shared = fleet["asked"], fleet["found"], fleet["shared"]
    return [*lines, f"this relay has asked {times(asked)}, found {found:,} and shared {shared:,} since its start"]
