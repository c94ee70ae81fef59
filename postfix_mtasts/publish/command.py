"""The command line of postfix-mtasts-publish.

    postfix-mtasts-publish add DOMAIN [--mx HOST...] [--max-age SECONDS]
    postfix-mtasts-publish list | show DOMAIN | records DOMAIN | zone
    postfix-mtasts-publish check [DOMAIN...]
    postfix-mtasts-publish mode DOMAIN testing|enforce|none [--force REASON]
    postfix-mtasts-publish mx DOMAIN --refresh | --set HOST...
    postfix-mtasts-publish max-age DOMAIN SECONDS
    postfix-mtasts-publish ready DOMAIN
    postfix-mtasts-publish remove DOMAIN
    postfix-mtasts-publish serve

Its results go to standard output, errors to standard error. Root goes on as the user whose folder the database is in.
"""

import argparse
import asyncio
import pathlib
import sys
from collections.abc import Awaitable, Callable

from postfix_mtasts import __version__, config
from postfix_mtasts.config import Config, ConfigError
from postfix_mtasts.config_file import read_config
from postfix_mtasts.publish import act, serve, view
from postfix_mtasts.publish.arguments import DAY
from postfix_mtasts.publish.change import who
from postfix_mtasts.publish.events import RefusedError
from postfix_mtasts.publish.files import FileError
from postfix_mtasts.publish.store import StoreError
from postfix_mtasts.query.arguments import Parser
from postfix_mtasts.query.output import Output, QueryError, Status, fail
from postfix_mtasts.rights import become_owner
from postfix_mtasts.sts.policy import MAX_AGE_LIMIT, Mode

PROGRAM = "postfix-mtasts-publish"
PUBLISHES_LATER = f"the change is stored, and `{PROGRAM} check` publishes it once that is mended"
_WEEK = 604_800  # Seconds.

Action = Callable[[argparse.Namespace, Config, Output], Awaitable[Status]]


def main() -> None:
    """Run the command."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> Status:
    """Run the command with these arguments and return its exit status."""
    try:
        arguments = parser().parse_args(words)
        settings = read_config(arguments.config)
        who()
        become_owner(pathlib.Path(settings.publish.path).parent)
        action: Action = arguments.action
        return asyncio.run(_run(action, arguments, settings))
    except RefusedError as error:
        return fail(PROGRAM, words, f"{arguments.domain}: {error}", error.hint, Status.ERROR)
    except QueryError as error:
        return fail(PROGRAM, words, str(error), error.hint, error.status)
    except FileError as error:
        return fail(PROGRAM, words, str(error), PUBLISHES_LATER, Status.UNAVAILABLE)
    except StoreError as error:
        return fail(PROGRAM, words, str(error), "", Status.UNAVAILABLE)
    except ConfigError as error:
        return fail(PROGRAM, words, str(error), "", Status.CONFIG)
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # Otherwise Python prints the error again at exit.
        return Status.UNAVAILABLE


async def _run(action: Action, arguments: argparse.Namespace, settings: Config) -> Status:
    return await action(arguments, settings, Output(json=arguments.json))


def parser() -> argparse.ArgumentParser:
    """The argument parser of the command."""
    made = Parser(PROGRAM, description="Publish MTA-STS policies (RFC 8461).", allow_abbrev=False)
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subcommands = made.add_subparsers(metavar="SUBCOMMAND", required=True)
    add = _subcommand(subcommands, "add", act.add, domain="DOMAIN")
    add.add_argument("--mx", nargs="+", metavar="HOST", help="the MX hosts (default: those in DNS)")
    add.add_argument("--max-age", default=str(_WEEK), metavar="SECONDS", help=f"max_age (default: {_WEEK}, a week)")
    _subcommand(subcommands, "list", view.domains)
    _subcommand(subcommands, "show", view.show, domain="DOMAIN")
    _subcommand(subcommands, "records", view.records, domain="DOMAIN")
    _subcommand(subcommands, "zone", view.zone)
    check = _subcommand(subcommands, "check", view.check)
    check.add_argument("domain", nargs="*", metavar="DOMAIN", help="the domains to look at (default: all)")
    mode = _subcommand(subcommands, "mode", act.mode, domain="DOMAIN")
    mode.add_argument("mode", choices=[one.value for one in Mode], metavar="MODE", help="testing, enforce or none")
    mode.add_argument("--force", metavar="REASON", help="enforce although a check finds problems; kept in the history")
    mx = _subcommand(subcommands, "mx", act.mx, domain="DOMAIN")
    which = mx.add_mutually_exclusive_group(required=True)
    which.add_argument("--refresh", action="store_true", help="allow the MX hosts that DNS has now")
    which.add_argument("--set", nargs="+", metavar="HOST", help="allow these MX hosts")
    age = _subcommand(subcommands, "max-age", act.max_age, domain="DOMAIN")
    age.add_argument("max_age", metavar="SECONDS", help=f"from {DAY} (a day) to {MAX_AGE_LIMIT} (a year)")
    _subcommand(subcommands, "ready", view.ready, domain="DOMAIN")
    _subcommand(subcommands, "remove", act.remove, domain="DOMAIN")
    _subcommand(subcommands, "serve", serve.serve)
    return made


def _subcommand(
    subcommands: "argparse._SubParsersAction[Parser]", name: str, action: Action, domain: str = ""
) -> argparse.ArgumentParser:
    """Add a subcommand. The first line of its action's documentation is its help."""
    described = (action.__doc__ or "").partition("\n")[0].rstrip(".")
    short = f"{described[0].lower()}{described[1:]}"
    made = subcommands.add_parser(name, help=short, description=f"{described}.", allow_abbrev=False)
    if domain:
        made.add_argument("domain", metavar=domain)
    made.add_argument("--json", action="store_true", help="print JSON, one document per line")
    made.add_argument(
        "--config", metavar="FILE", help=f"the configuration (default: {config.DEFAULT_PATH}, if it exists)"
    )
    made.set_defaults(action=action, user="")  # Who runs it.
    return made
