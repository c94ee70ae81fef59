"""What a word of the command line means."""

import os

from postfix_mtasts.query.output import QueryError, Status
from postfix_mtasts.sts.domain import NextHop, PolicyDomainError, next_hop


def next_hop_of(word: str) -> NextHop:
    """The next hop that a word of the command line means. Raises QueryError."""
    try:
        return next_hop(os.fsencode(word))
    except PolicyDomainError as error:
        hint = "a domain that can have a policy has two labels or more, and is no address"
        raise QueryError(f"{word!a}: {error}", hint, Status.USAGE) from error
