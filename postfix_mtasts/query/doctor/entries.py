"""The entries of a table, as far as they can be listed."""

import re

from postfix_mtasts.postfix.installation import NoPostfix
from postfix_mtasts.postfix.tables import Table
from postfix_mtasts.query.doctor.installed import Installed, UnreadableError

_MOST = 10_000  # Entries of a table.
_LISTED = ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash", "inline")  # By `postmap -s`.
_PATTERNS = ("regexp", "pcre", "cidr")  # Files of patterns, whose results are read here.
# A pattern between two of the same character, with flags, or an address with a mask; then the result.
_PATTERN = re.compile(r"!?(?:([^\w\s])(?:\\.|(?!\1).)*\1\w*|[\w.:/\[\]]+)\s+(\S.*)")


async def entries_of(postfix: Installed, table: Table) -> dict[str, str]:
    """The keys of a table, or its patterns, and their values. There are none if the table cannot be listed."""
    if table.kind == "static":
        return {"every domain": table.name}
    try:
        if table.kind in _LISTED:
            return dict(list((await postfix.entries(table.direct)).items())[:_MOST])
        if table.kind in _PATTERNS and table.file:
            return dict(list(patterns(table.file.read_text("utf-8", "replace")).items())[:_MOST])
    except (NoPostfix, UnreadableError, OSError):
        pass
    return {}


def patterns(text: str) -> dict[str, str]:
    """The patterns of a file as in regexp_table(5) or cidr_table(5), and their results."""
    logical = re.sub(r"\n[ \t]+", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    found = {}
    for line in logical.splitlines():
        match = _PATTERN.fullmatch(line.strip())
        if match and not re.match(r"(?:if|endif)\b", line):
            found[line[: match.start(2)].strip()] = match[2].strip()
    return found
