"""Have the daemon look up many domains before a busy relay needs them, so that the first mail to each does not wait.

The command asks as Postfix does. FILE has one domain per line, and comments after #. A line that is not a domain is
skipped with a warning.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from postfix_mtasts.config import Endpoint
from postfix_mtasts.daemon.command import read_config
from postfix_mtasts.query.output import Output, QueryError, Status
from postfix_mtasts.query.running.client import ask_as_postfix
from postfix_mtasts.remote.network import in_words
from postfix_mtasts.sts.domain import PolicyDomainError, next_hop

_CONCURRENCY = 20
_MOST = 1000


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="file with one domain per line, or - for standard input")
    parser.add_argument(
        "--concurrency",
        metavar="N",
        type=_number,
        default=_CONCURRENCY,
        help=f"how many domains to look up at a time (default: {_CONCURRENCY})",
    )


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Ask for each domain. WARNING if a line was skipped, or if mail to a domain is deferred.

    Raises QueryError and ConfigError.
    """
    domains = list(dict.fromkeys(_domains(arguments.file, output)))
    endpoint = read_config(arguments.config).server.listen[0]
    replies = asyncio.run(_warm(domains, endpoint, arguments.concurrency, output))
    counts = {
        "domains": len(domains),
        "policies": replies["OK"],
        "none": replies["NOTFOUND"],
        "deferred": replies["TEMP"],
    }
    if output.json:
        output.document(counts)
    else:
        output.text(
            "{domains} domains: {policies} with a policy for Postfix, {none} without, {deferred} deferred".format(
                **counts
            )
        )
    return Status.WARNING if output.warned or replies["TEMP"] else Status.OK


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MOST}")
    return int(text)


def _domains(file: str, output: Output) -> Iterator[str]:
    """The domains in a file, as Postfix would ask for them. Warns of a line that is not a domain."""
    try:
        octets = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise QueryError(f"{file}: {in_words(error)}", status=Status.USAGE) from error
    for number, line in enumerate(octets.split(b"\n"), start=1):
        word = line.partition(b"#")[0].strip()
        try:
            if word:
                yield str(next_hop(word))
        except PolicyDomainError as error:
            output.warn(f"{file}:{number}: {word.decode('utf-8', 'replace')!a} skipped: {error}")


async def _warm(domains: list[str], endpoint: Endpoint, concurrency: int, output: Output) -> Counter[str]:
    """How many replies there were of each status."""
    replies: Counter[str] = Counter()
    waiting = iter(domains)

    async def work() -> None:
        for domain in waiting:
            reply = (await ask_as_postfix(endpoint, domain)).reply
            replies[reply.partition(" ")[0]] += 1
            output.progress(f"{replies.total()} of {len(domains)} domains")

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return replies
