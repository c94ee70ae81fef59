"""Domains as the command line has them."""

import os

from postfix_mtasts.query.output import QueryError, Status
from postfix_mtasts.sts.domain import NextHop, PolicyDomainError, next_hop


def next_hop_of(word: str) -> NextHop:
    """The next hop that an argument such as `example.com` or `[host]:port` names. Raises QueryError."""
    try:
        return next_hop(os.fsencode(word))
    except PolicyDomainError as error:
        hint = "only domain names with at least one dot can have a policy; IP addresses cannot"
        raise QueryError(f"{word!a}: {error}", hint, Status.USAGE) from error
