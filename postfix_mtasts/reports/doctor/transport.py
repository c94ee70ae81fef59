"""How this machine's Postfix hands reports to this command: by a service of master.cf, and tables that lead there."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from postfix_mtasts.postfix.installation import DEADLINE, PATH, NoPostfix, run
from postfix_mtasts.postfix.tables import tables
from postfix_mtasts.reports.voice import PROGRAM

_MAX_ALIASES = 10  # Steps from one alias to the next.
_TABLES = ("virtual_alias_maps", "transport_maps")


@dataclass(frozen=True, slots=True)
class Transport:
    """The services of master.cf that run this command, with the user of each, and Postfix's tables."""

    services: Mapping[str, str]
    tables: Mapping[str, str]
    path: str

    @property
    def users(self) -> tuple[str, ...]:
        """The users as whom Postfix runs this command."""
        return tuple(dict.fromkeys(self.services.values()))

    async def leads_here(self, address: str) -> bool:
        """Whether virtual aliases and transports lead from an address to this command. Raises NoPostfix.

        Postfix knows more ways, such as aliases(5), so an address of which this is not true may arrive all the same.
        """
        for _ in range(_MAX_ALIASES):
            domain = address.rpartition("@")[2]
            found = await self._look_up("virtual_alias_maps", (address, f"@{domain}"))
            if not found:
                break
            address = re.split(r"[,\s]+", found.strip())[0].lower()
        labels = address.rpartition("@")[2].split(".")
        parents = [f".{'.'.join(labels[start:])}" for start in range(1, len(labels))]
        found = await self._look_up("transport_maps", (address, ".".join(labels), *parents))
        return found.partition(":")[0] in self.services

    async def _look_up(self, parameter: str, keys: Sequence[str]) -> str:
        """What the first table that has one of the keys says, or an empty text."""
        for table in tables(self.tables.get(parameter, "")):
            given = "".join(f"{key}\n" for key in keys)
            output = await _output("postmap", "-q", "-", table.text, path=self.path, given=given)
            found = dict(line.split("\t", 1) for line in output.splitlines() if "\t" in line)
            for key in keys:
                if key in found:
                    return found[key]
        return ""


async def transport(path: str = PATH) -> Transport:
    """Ask the first postconf in `path`. Raises NoPostfix."""
    services = {}
    for line in (await _output("postconf", "-M", path=path)).splitlines():
        words = line.split()
        if len(words) > 7 and words[7] == "pipe" and re.search(rf"\bargv=\S*{PROGRAM} receive\b", line):
            user = re.search(r"\buser=([^:\s]+)", line)
            services[words[0]] = user[1] if user else ""
    lines = (await _output("postconf", "-x", *_TABLES, path=path)).splitlines()
    values = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    return Transport(services, values, path)


async def _output(command: str, *words: str, path: str, given: str = "") -> str:
    found = shutil.which(command, path=path)
    if not found:
        raise NoPostfix(f"there is no {command} command on this machine")
    try:
        return (await run(found, *words, given=given)).output
    except TimeoutError as error:
        raise NoPostfix(f"{found} did not answer within {DEADLINE:g} s") from error
    except OSError as error:
        raise NoPostfix(f"{found} cannot be run") from error
