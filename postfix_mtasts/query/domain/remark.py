"""A remark on a domain, with how serious it is."""

from dataclasses import dataclass

from postfix_mtasts.query.output import Status


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that the owner of the domain, or a sender, should know. With status OK it is only information.

    `check` is a stable word for what was checked: running, resolver, record, host, policy, mx, probe, dane or tlsrpt.
    """

    status: Status
    text: str
    check: str = "running"


def note(text: str, check: str = "running") -> Remark:
    """Information."""
    return Remark(Status.OK, text, check)


def warning(text: str, check: str = "running") -> Remark:
    """It works now, but may soon fail."""
    return Remark(Status.WARNING, text, check)


def error(text: str, check: str = "running") -> Remark:
    """It does not work."""
    return Remark(Status.ERROR, text, check)
