"""The command line of postfix-mtasts-query.

    postfix-mtasts-query [--probe] [--patient] [--all] DOMAIN...
    postfix-mtasts-query --as-postfix KEY...
    postfix-mtasts-query [--policy FILE] [--record TXT] [--server ADDRESS] DOMAIN
    postfix-mtasts-query cache list | show DOMAIN... | forget DOMAIN... | refresh DOMAIN...
    postfix-mtasts-query except add DOMAIN --until DATE --reason TEXT | list | remove DOMAIN
    postfix-mtasts-query doctor
    postfix-mtasts-query fleet
    postfix-mtasts-query health
    postfix-mtasts-query shadow [--all]
    postfix-mtasts-query warm FILE

Each subcommand is a module with `arguments(parser)` and `run(arguments, output)`, which returns the exit status
(`output.Status`). No domain looks like a subcommand: a name without a dot has no policy.
"""

import argparse
import difflib
import errno
import logging
import sys
from types import ModuleType

from postfix_mtasts import __version__, config
from postfix_mtasts.config import ConfigError
from postfix_mtasts.query import exceptions
from postfix_mtasts.query.arguments import Parser
from postfix_mtasts.query.doctor import doctor
from postfix_mtasts.query.domain import domains
from postfix_mtasts.query.output import PROGRAM, Output, QueryError, Status, fail
from postfix_mtasts.query.running import cache, fleet, health, shadow, warm
from postfix_mtasts.remote.network import in_words

SUBCOMMANDS: dict[str, ModuleType] = {
    "cache": cache,
    "except": exceptions,
    "doctor": doctor,
    "fleet": fleet,
    "health": health,
    "shadow": shadow,
    "warm": warm,
}


def run(words: list[str]) -> Status:
    """Run the command with these arguments and return its exit status."""
    # When Ctrl-C ends the event loop, asyncio may warn of a program of Postfix whose end it has missed.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        return _run(words)
    except QueryError as error:
        return fail(PROGRAM, words, str(error), error.hint, error.status)
    except ConfigError as error:
        return fail(PROGRAM, words, str(error), "", Status.CONFIG)
    except BrokenPipeError:
        sys.stderr.close()  # Otherwise Python prints the error again at exit.
        return Status.UNAVAILABLE
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        reason = f"{in_words(error)}: raise the limit, for example with `ulimit -n 1024`"
        return fail(PROGRAM, words, reason, "", Status.UNAVAILABLE)


def parser(name: str | None) -> argparse.ArgumentParser:
    """The argument parser of a subcommand, or of the command without one."""
    words = f"{PROGRAM} {name}" if name else PROGRAM
    module = SUBCOMMANDS[name] if name else domains
    described = (module.__doc__ or "").partition("\n")[0]
    subcommands = "" if name else f"subcommands: {', '.join(SUBCOMMANDS)}; see {PROGRAM} SUBCOMMAND --help"
    made = Parser(words, description=described, epilog=subcommands, allow_abbrev=False)
    module.arguments(made)
    _add_common(made)
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return made


def _run(words: list[str]) -> Status:
    name = _subcommand(words)
    if name:
        words = words.copy()
        words.remove(name)
    arguments = parser(name).parse_intermixed_args(words)
    status: Status = (SUBCOMMANDS[name] if name else domains).run(arguments, Output(json=arguments.json))
    return status


def _subcommand(words: list[str]) -> str | None:
    """The subcommand, if there is one. Options may come before it."""
    common = Parser(PROGRAM, add_help=False, allow_abbrev=False)
    _add_common(common)
    _, rest = common.parse_known_args(words)
    if not rest or rest[0] in SUBCOMMANDS:
        return rest[0] if rest else None
    near = difflib.get_close_matches(rest[0], SUBCOMMANDS, n=1)
    if near and rest[0].isalpha() and rest[0].isascii():
        raise QueryError(f"unknown subcommand {rest[0]}, did you mean {near[0]}?", f"{PROGRAM} --help", Status.USAGE)
    return None


def _add_common(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--config", metavar="FILE", help=f"the daemon's configuration (default: {config.DEFAULT_PATH}, if it exists)"
    )
    made.add_argument("--json", action="store_true", help="print JSON, one document per line")
