"""What command lines share: an error is told in one line, and domains are written as in Postfix's tables."""

import argparse
import os
from typing import NoReturn

from postfix_mtasts.query.output import QueryError, Status
from postfix_mtasts.sts.domain import NextHop, PolicyDomainError, next_hop


class Parser(argparse.ArgumentParser):
    """Raises QueryError with one line and a hint, instead of printing the whole usage."""

    def error(self, message: str) -> NoReturn:
        """The command line is wrong."""
        raise QueryError(message, f"{self.prog} --help", Status.USAGE)


def next_hop_of(word: str) -> NextHop:
    """The next hop that an argument such as `example.com` or `[host]:port` names. Raises QueryError."""
    try:
        return next_hop(os.fsencode(word))
    except PolicyDomainError as error:
        hint = "only domain names with at least one dot can have a policy; IP addresses cannot"
        raise QueryError(f"{word!a}: {error}", hint, Status.USAGE) from error
