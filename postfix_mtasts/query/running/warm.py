"""Have the daemon look up many domains before a busy relay needs them, so that the first mail to each does not wait.

The command asks as Postfix does. FILE has one domain per line, and comments after #. A line that is not a domain is
skipped with a warning.

Postfix is not told whether a domain has no policy or whether that is unknown, because DNS or the policy host fails. So
the command then asks the daemon for the reason, over its control socket.

Exit status: 0 if all domains were looked up, 1 if a line was skipped or the daemon cannot be asked for reasons, 2 if a
policy could not be looked up or mail to a domain is deferred.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from postfix_mtasts.config import Config
from postfix_mtasts.config_file import read_config
from postfix_mtasts.counting import counted
from postfix_mtasts.query.output import Output, QueryError, Status, say
from postfix_mtasts.query.running.client import NoDaemon, ask, ask_as_postfix, sockets
from postfix_mtasts.remote.network import in_words
from postfix_mtasts.sts.domain import PolicyDomainError, next_hop

_CONCURRENCY = 20  # Domains at once, unless another number is asked for.
_MOST = 1000  # That may be asked for.
_SHOWN = 20  # Domains whose lookup failed.
_PATIENCE = 10.0  # Seconds, for an answer from memory.


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
    """Ask for each domain. Raises QueryError and ConfigError."""
    domains = list(dict.fromkeys(_domains(arguments.file, output)))
    results = _Results(read_config(arguments.config), output, len(domains))
    asyncio.run(results.warm(domains, arguments.concurrency))
    replies, failed = results.replies, len(results.failures)
    counts = {
        "domains": len(domains),
        "policies": replies["OK"],
        "none": replies["NOTFOUND"] - failed,
        "failed": failed,
        "deferred": replies["TEMP"],
    }
    for domain, reason in list(results.failures.items())[:_SHOWN]:
        say(f"{domain}: {reason}")
    if failed > _SHOWN:
        say(f"and {failed - _SHOWN} more")
    if output.json:
        output.document(counts)
    else:
        words = "{policies} with a policy for Postfix, {none} without, {failed} failed, {deferred} deferred"
        output.text(f"{counted(len(domains), 'domain')}: {words.format(**counts)}")
    if failed or replies["TEMP"]:
        return Status.ERROR
    return Status.WARNING if output.warned else Status.OK


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


class _Results:
    """The replies by their first word, and for each domain whose policy could not be looked up the reason."""

    def __init__(self, settings: Config, output: Output, expected: int) -> None:
        self.replies: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self._control = settings.server.control
        self._endpoint = sockets(settings)[0]
        self._output = output
        self._expected = expected

    async def warm(self, domains: list[str], concurrency: int) -> None:
        """Ask for the domains, some at a time."""
        waiting = iter(domains)
        await asyncio.gather(*(self._work(waiting) for _ in range(concurrency)))

    async def _work(self, waiting: Iterator[str]) -> None:
        for domain in waiting:
            reply = (await ask_as_postfix(self._endpoint, domain)).reply
            word = reply.partition(" ")[0]
            if word == "NOTFOUND" and (reason := await asyncio.to_thread(self._why_unknown, domain)):
                self.failures[domain] = reason
            self.replies[word] += 1
            self._output.progress(f"{self.replies.total():,} of {counted(self._expected, 'domain')}")

    def _why_unknown(self, domain: str) -> str:
        """Why it is unknown whether a domain has a policy. Empty if that is known, or if the daemon cannot be asked."""
        try:
            (known,) = ask(self._control, {"request": "show", "domain": domain}, _PATIENCE)
        except NoDaemon as error:
            if not self._output.warned:
                remedy = f": {error.remedy}" if error.remedy else ""
                self._output.warn(f"{error}{remedy}; domains whose lookup failed count as without a policy")
            return ""
        note = known["note"]
        if known["row"] or (note and note["no_policy"]):
            return ""
        return note["reason"] if note else "the lookup goes on"
