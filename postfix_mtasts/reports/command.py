"""The command line of postfix-mtasts-reports.

    postfix-mtasts-reports read FILE...

Its results go to standard output, errors to standard error.
"""

import argparse
import asyncio
import datetime
import sys
from typing import NoReturn

from postfix_mtasts import __version__, config
from postfix_mtasts.config import Config, ConfigError
from postfix_mtasts.config_file import read_config
from postfix_mtasts.query.output import Output, Status, worst

PROGRAM = "postfix-mtasts-reports"
_EXTRA = ("dkim", "publicsuffix2")


def main() -> None:
    """Run the command."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> Status:
    """Run the command with these arguments and return its exit status."""
    arguments = parser().parse_args(words)
    try:
        return asyncio.run(_read(arguments.file, read_config(arguments.config), Output(json=arguments.json)))
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        _complain("reports need dkimpy and publicsuffix2 (Debian: python3-dkim, python3-publicsuffix2)")
        return Status.UNAVAILABLE
    except ConfigError as error:
        _complain(str(error))
        return Status.CONFIG
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # Otherwise Python prints the error again at exit.
        return Status.UNAVAILABLE


def parser() -> argparse.ArgumentParser:
    """The argument parser of the command."""
    made = _Parser(PROGRAM, description="Read TLS reports (RFC 8460).")
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    subcommands = made.add_subparsers(metavar="SUBCOMMAND", required=True)
    read = subcommands.add_parser("read", help="show what is in reports, and store nothing")
    read.add_argument("file", nargs="+", metavar="FILE", help="a mail, a Maildir, or a report: JSON, or JSON in gzip")
    read.add_argument("--json", action="store_true", help="print JSON, one document per line")
    read.add_argument(
        "--config", metavar="FILE", help=f"the daemon's configuration (default: {config.DEFAULT_PATH}, if it exists)"
    )
    return made


async def _read(names: list[str], settings: Config, output: Output) -> Status:
    # These need the libraries of the extra `reports`.
    from postfix_mtasts.dns.resolver import Resolver
    from postfix_mtasts.reports.files import files
    from postfix_mtasts.reports.reading import read
    from postfix_mtasts.reports.show import document, show
    from postfix_mtasts.reports.trust import Verifier

    verifier = Verifier(Resolver(settings.dns.nameservers, timeout=settings.dns.timeout))
    statuses: list[Status] = []
    for name in names:
        for file in files(name):
            reading = await read(file, verifier, datetime.datetime.now(datetime.UTC))
            if output.json:
                output.document(document(reading))
            else:
                if statuses:
                    output.text()
                show(reading, output)
            problems = reading.report.problems if reading.report else ()
            statuses.append(Status.ERROR if reading.rejected else Status.WARNING if problems else Status.OK)
    return worst(statuses)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line and a hint, not the whole usage."""
        _complain(message, f"{self.prog} --help")
        sys.exit(Status.USAGE)


def _complain(reason: str, hint: str = "") -> None:
    print(f"{PROGRAM}: error: {reason}", file=sys.stderr)  # noqa: T201 - this is the output
    if hint:
        print(f"hint: {hint}", file=sys.stderr)  # noqa: T201 - this is the output
