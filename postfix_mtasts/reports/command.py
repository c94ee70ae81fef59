"""The command line of postfix-mtasts-reports.

    postfix-mtasts-reports receive | read FILE... | import FILE... | replay
    postfix-mtasts-reports sources | results | show REPORT | quarantine list|show|accept|drop
    postfix-mtasts-reports hide SOURCE | unhide SOURCE
    postfix-mtasts-reports html DIRECTORY
    postfix-mtasts-reports alert | summary [--to ADDRESS] | doctor [DOMAIN...]

Its results go to standard output, errors to standard error.
"""

import argparse
import asyncio
import sys
from typing import Any, NoReturn

from postfix_mtasts import __version__, config
from postfix_mtasts.config import ConfigError
from postfix_mtasts.config_file import read_config
from postfix_mtasts.config_values import address
from postfix_mtasts.query.output import Output, QueryError, Status
from postfix_mtasts.reports.looking import VIEWS, Subcommand
from postfix_mtasts.reports.store import StoreError
from postfix_mtasts.reports.views import DAYS, MAX_DAYS
from postfix_mtasts.reports.voice import PROGRAM, complain
from postfix_mtasts.sts.domain import HostnameError, hostname

_EXTRA = ("dkim", "jinja2", "publicsuffix2")


def run(words: list[str]) -> Status:
    """Run the command with these arguments and return its exit status. `receive` is not run here."""
    arguments = parser().parse_args(words)
    try:
        settings = read_config(arguments.config)
        return asyncio.run(
            _subcommand(arguments.subcommand)(arguments, settings, Output(json=getattr(arguments, "json", False)))
        )
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        complain(
            "pages need Jinja (Debian: python3-jinja2)"
            if error.name == "jinja2"
            else "reports need dkimpy and publicsuffix2 (Debian: python3-dkim, python3-publicsuffix2)"
        )
        return Status.UNAVAILABLE
    except ConfigError as error:
        complain(str(error))
        return Status.CONFIG
    except QueryError as error:
        complain(str(error), error.hint)
        return error.status
    except StoreError as error:
        complain(str(error), error.hint)
        return Status.UNAVAILABLE
    except BrokenPipeError:
        sys.stderr.close()  # Otherwise Python prints the error again at exit.
        return Status.UNAVAILABLE
    except OSError as error:
        hint = "run it as root" if isinstance(error, PermissionError) else ""
        complain(f"{error.filename or ''}: {(error.strerror or str(error)).lower()}".lstrip(": "), hint)
        return Status.UNAVAILABLE
    except KeyboardInterrupt:
        return Status.INTERRUPTED


def _subcommand(name: str) -> Subcommand:
    if name in VIEWS:
        return VIEWS[name]
    if name in ("alert", "summary"):
        from postfix_mtasts.reports import telling

        return telling.SUBCOMMANDS[name]
    if name == "doctor":
        from postfix_mtasts.reports.doctor import doctor

        return doctor.run
    # It needs the libraries of the extra `reports`.
    from postfix_mtasts.reports.subcommands import SUBCOMMANDS

    return SUBCOMMANDS[name]


def parser() -> argparse.ArgumentParser:
    """The argument parser of the command."""
    made = _Parser(PROGRAM, description="Take in and read TLS reports (RFC 8460).", allow_abbrev=False)
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subcommands = made.add_subparsers(metavar="SUBCOMMAND", dest="subcommand", required=True)
    _add(subcommands, "receive", "save a mail from standard input and take it in: for Postfix's pipe(8)", json=False)
    for name, help_text in (
        ("read", "show what is in reports, and store nothing"),
        ("import", "store what is in reports"),
    ):
        _add(subcommands, name, help_text).add_argument(
            "file", nargs="+", metavar="FILE", help="a mail, a Maildir, or a report: JSON, or JSON in gzip"
        )
    _add_views(subcommands)
    _add_quarantine(subcommands)
    _add(subcommands, "replay", "take in all mails again that are still there")
    _add_mailing(subcommands)
    return made


def _add_views(subcommands: Any) -> None:
    for name, help_text in (
        ("sources", "who reported how many sessions, and what failed"),
        ("results", "what failed, what it means and what to do"),
    ):
        view = _add(subcommands, name, help_text)
        view.add_argument(
            "--days", type=_days, default=DAYS, metavar="N", help=f"so many days, up to yesterday (default: {DAYS})"
        )
        view.add_argument("--domain", type=_domain, metavar="DOMAIN", help="only of this policy domain")
        view.add_argument("--all", action="store_true", help="count senders that are not verified, and print all")
    for name, help_text in (
        ("hide", "leave a source out of `sources` until what it reports changes"),
        ("unhide", "have a source in `sources` again"),
    ):
        _add(subcommands, name, help_text).add_argument(
            "source", type=_domain, metavar="SOURCE", help="as `sources` has it"
        )
    _add(subcommands, "show", "show a stored report").add_argument(
        "report", metavar="REPORT", help="its key, or its id"
    )
    _add(subcommands, "html", "write pages for a browser", json=False).add_argument(
        "directory", metavar="DIRECTORY", help="a folder for these pages alone; it is made if it is missing"
    )


def _add_quarantine(subcommands: Any) -> None:
    what = "what could not be read, or is about other domains"
    quarantine = subcommands.add_parser("quarantine", help=what, description=_sentence(what), allow_abbrev=False)
    actions = quarantine.add_subparsers(metavar="ACTION", dest="action", required=True)
    _add(actions, "list", "list the messages, with their numbers")
    for name, help_text in (
        ("show", "show messages"),
        ("accept", "take messages in, whatever domain they are about"),
        ("drop", "delete messages for good"),
    ):
        _add(actions, name, help_text).add_argument(
            "number", nargs="+", type=int, metavar="NUMBER", help="as `quarantine list` has it"
        )


def _add_mailing(subcommands: Any) -> None:
    for name, help_text in (
        ("alert", "tell what is new, still there after a week, or over, once each: for a timer"),
        ("summary", "tell how the week was"),
    ):
        _add(subcommands, name, help_text).add_argument(
            "--to", type=_address, metavar="ADDRESS", help="mail it there (default: reports.alert_to)"
        )
    doctor = _add(subcommands, "doctor", "check that reports arrive here, and what is wrong")
    doctor.add_argument("domain", nargs="*", type=_domain, metavar="DOMAIN", help="of yours (default: reports.domains)")
    doctor.add_argument("--no-mail", action="store_true", help="send no mail to the address that reports go to")


def _add(to: Any, name: str, help_text: str, *, json: bool = True) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = to.add_parser(
        name, help=help_text, description=_sentence(help_text), allow_abbrev=False
    )
    if json:
        one.add_argument("--json", action="store_true", help="print JSON, one document per line")
    one.add_argument(
        "--config", metavar="FILE", help=f"the configuration (default: {config.DEFAULT_PATH}, if it exists)"
    )
    return one


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MAX_DAYS}")
    return int(text)


def _domain(text: str) -> str:
    try:
        return hostname(text)
    except HostnameError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _address(text: str) -> str:
    try:
        return address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("must be an address such as postmaster@example.com") from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line and a hint, not the whole usage."""
        complain(message, f"{self.prog} --help")
        sys.exit(Status.USAGE)
