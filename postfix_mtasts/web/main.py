"""The command line of postfix-mtasts-web, the dashboard.

    postfix-mtasts-web [--helpers FOLDER] [--config FILE]    serve it on web.listen, until SIGTERM or SIGINT
    postfix-mtasts-web --helper PROGRAM [--config FILE]      do one thing for it, as another user (`web.helper`)

Exit status: 0 after a signal, 64 if the command line is wrong, 69 if it cannot listen or a library is missing, 78 if
the configuration is wrong, or `web.listen` is empty.
"""

import argparse
import asyncio
import logging
import sys
from typing import NoReturn

from postfix_mtasts import __version__, config
from postfix_mtasts.config import Config, ConfigError
from postfix_mtasts.config_file import read_config
from postfix_mtasts.query.output import Status

PROGRAM = "postfix-mtasts-web"
_EXTRA = ("jinja2", "starlette", "uvicorn")
PROGRAMS = ("postfix-mtasts-query", "postfix-mtasts-publish", "postfix-mtasts-reports")


def main() -> None:
    """Run the command."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> Status:
    """Run the command with these arguments and return its exit status."""
    arguments = parser().parse_args(words)
    try:
        settings = read_config(arguments.config)
        if arguments.helper:
            return _help(arguments.helper, settings, arguments.config)
        if settings.web.listen is None:
            hint = 'such as "unix:/run/postfix-mtasts-web/socket"'
            raise ConfigError(
                f"{arguments.config or config.DEFAULT_PATH}: the dashboard is off: set web.listen, {hint}"
            )
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s: %(message)s")
        return _serve(settings, arguments.config, arguments.helpers)
    except ConfigError as error:
        return _fail(str(error), Status.CONFIG)


def _serve(settings: Config, path: str | None, helpers: str) -> Status:
    try:
        from postfix_mtasts.web.helper import Hands
        from postfix_mtasts.web.serve import StartError, serve
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        packages = "python3-starlette, python3-uvicorn, python3-jinja2"
        return _fail(f"it needs Starlette, uvicorn and Jinja (Debian: {packages})", Status.UNAVAILABLE)
    try:
        asyncio.run(serve(settings, Hands(settings, path, helpers)))
    except StartError as error:
        return _fail(str(error), Status.UNAVAILABLE)
    except KeyboardInterrupt:
        pass
    return Status.OK


def _help(program: str, settings: Config, path: str | None) -> Status:
    from postfix_mtasts.web.helper import RequestError, answer

    try:
        answer(program, settings, path)
    except RequestError as error:
        return _fail(str(error), Status.USAGE)
    except OSError as error:
        return _fail(str(error), Status.UNAVAILABLE)
    return Status.OK


def parser() -> argparse.ArgumentParser:
    """The argument parser of the command."""
    made = _Parser(
        PROGRAM, description="Show and change on pages for a browser what the commands do.", allow_abbrev=False
    )
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    made.add_argument(
        "--config", metavar="FILE", help=f"the configuration (default: {config.DEFAULT_PATH}, if it exists)"
    )
    how = made.add_mutually_exclusive_group()
    how.add_argument("--helpers", metavar="FOLDER", default="", help="have changes made by helpers with sockets there")
    how.add_argument("--helper", choices=PROGRAMS, metavar="PROGRAM", help="be one, for postfix-mtasts-publish or so")
    return made


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Tell the error in one line with a hint, and not the whole usage."""
        _fail(message, Status.USAGE)
        print(f"hint: {self.prog} --help", file=sys.stderr)  # noqa: T201 - this is the output
        sys.exit(Status.USAGE)


def _fail(reason: str, status: Status) -> Status:
    print(f"{PROGRAM}: error: {reason}", file=sys.stderr)  # noqa: T201 - this is the output
    return status
