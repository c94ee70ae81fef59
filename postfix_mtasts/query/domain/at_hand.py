"""The Postfix on this machine, as far as it decides what becomes of mail to a domain before and after the daemon does.

A probe does as it does. Its main.cf names the socket on which it asks the daemon, and may have tables with exceptions
ahead of that.
"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postfix_mtasts.config import Endpoint, UnixEndpoint
from postfix_mtasts.postfix.installation import CLIENT_SETTINGS, PATH, Client, client_of, run, settings
from postfix_mtasts.postfix.tables import Table, is_same, tables
from postfix_mtasts.query.domain.report import ExceptionReport

_NAMES = ("queue_directory", "smtp_tls_policy_maps", *CLIENT_SETTINGS)


@dataclass(frozen=True, slots=True)
class AtHand:
    """What main.cf says. Without a Postfix, nothing but `client` and `path`."""

    client: Client
    tables: tuple[Table, ...] = ()  # Of smtp_tls_policy_maps.
    queue: pathlib.Path | None = None
    path: str = PATH

    def asks(self, served: Sequence[Endpoint]) -> tuple[Endpoint, str] | None:
        """Where Postfix asks the daemon that serves these sockets, and the map name that it sends there."""
        found = self._ours(served)
        return (found[1], found[0].map_name) if found else None

    async def exempt(self, next_hop: str, served: Sequence[Endpoint]) -> ExceptionReport | None:
        """The exception for a next hop in a table ahead of the daemon, if there is one that this user may read."""
        ours = self._ours(served)
        command = shutil.which("postmap", path=self.path)
        if not ours or not command:
            return None
        for table in self.tables[: self.tables.index(ours[0])]:
            if table.kind != "socketmap":
                with contextlib.suppress(OSError, TimeoutError):
                    done = await run(command, "-q", next_hop, table.direct)
                    if done.status == 0 and done.output.strip():
                        return ExceptionReport(table.text, done.output.strip())
        return None

    def _ours(self, served: Sequence[Endpoint]) -> tuple[Table, Endpoint] | None:
        """The first table that leads to one of these sockets, and the way there."""
        ways = ((table, way) for table in self.tables for way in self._ways(table))
        return next(((table, way) for table, way in ways if any(is_same(one, way) for one in served)), None)

    def _ways(self, table: Table) -> Iterator[Endpoint]:
        """Where a socketmap table leads, whether smtp(8) runs in a chroot or not."""
        endpoint = table.endpoint
        if isinstance(endpoint, UnixEndpoint):
            if endpoint.path.startswith("/"):
                yield endpoint
            if self.queue:
                yield UnixEndpoint(str(self.queue / endpoint.path.lstrip("/")))
        elif endpoint:
            yield endpoint


async def at_hand(path: str = PATH) -> AtHand:
    """Ask the first postconf(1) in the folders of `path`. A Postfix that does not answer is taken for none."""
    values = await settings(_NAMES, path)
    queue = pathlib.Path(values["queue_directory"]) if values.get("queue_directory") else None
    listed = tables(values.get("smtp_tls_policy_maps", ""))
    return AtHand(client_of(values), listed, queue, path)
