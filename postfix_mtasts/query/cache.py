"""List, show, forget and refresh what the daemon has cached."""

import argparse

from postfix_mtasts.query.output import Output, Status


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", choices=("list", "show", "forget", "refresh"))
    parser.add_argument("domain", nargs="*", metavar="DOMAIN")


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Run the subcommand. Raises QueryError and ConfigError."""
    return Status.OK
