"""The values around the rules: what happens to a published domain, and what follows."""

from dataclasses import dataclass
from typing import Literal

from postfix_mtasts.publish.state import State
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy


class RefusedError(ValueError):
    """What the administrator asks for would stop mail, or has no meaning now. The message says why.

    `hint` is what may help, or empty.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Added:
    """Publish a policy for a domain.

    `found` is the policy that somebody publishes for it now, if there is one. `findable` is false if DNS surely has no
    record of it. `hosts` are the MX hosts that DNS has now; None if they could not be looked up.
    """

    domain: PolicyDomain
    policy: Policy
    found: Policy | None = None
    findable: bool = False
    hosts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModeAsked:
    """Change the mode. `problems` are those of a check made just now. With a reason, `force`, they do not matter.

    `auto` says that nobody asks, but that all conditions of `ready` hold.
    """

    mode: Mode
    problems: tuple[str, ...] = ()
    force: str = ""
    auto: bool = False


@dataclass(frozen=True, slots=True)
class MxAsked:
    """Change the mx lines. `hosts` are the MX hosts that DNS has now; None if they could not be looked up."""

    mx: tuple[MxPattern, ...]
    hosts: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class MaxAgeAsked:
    """Change the max_age, in seconds."""

    max_age: int


@dataclass(frozen=True, slots=True)
class RemovalAsked:
    """Stop publishing, without stopping mail."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a sender sees now, at a time when our file was on disk as it is to be.

    `files` are the different valid policies that the addresses of the policy host serve; `all_serve` is false if one of
    them serves none. `record` is the id in DNS, and `no_record` says that DNS surely has none. `hosts` are the MX
    hosts, and `points_here` is whether the policy host is ours; None if that is unknown. `version` is the state's from
    before the look: if the file has changed since, `files` say nothing. `certificates` are those of the policy host and
    of the MX hosts: of which host, and when it ends, as a time.
    """

    version: int
    files: tuple[Policy, ...]
    all_serve: bool
    record: str | None
    no_record: bool
    hosts: tuple[str, ...] | None
    points_here: bool | None
    problems: tuple[str, ...] = ()
    certificates: tuple[tuple[str, float], ...] = ()


Event = Added | ModeAsked | MxAsked | MaxAgeAsked | RemovalAsked | Looked


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to be published: the policy of the file, the id of the record, and whether a certificate may be had."""

    file: Policy | None
    record: str | None
    certificate: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Something that has to happen before the next step. `until` is a time; None: it is not known yet.

    - file: the file must be seen from outside.
    - record: DNS must show the record.
    - add-mx: `host` must not be in DNS before `until`.
    - drop-mx: `host` stays in the policy until `until`.
    - expiry: mode none is served until all other policies have expired.
    - no-record: the record must be gone from DNS, for RECORD_GONE_FOR.
    - no-file: the file must be gone.
    """

    kind: Literal["file", "record", "add-mx", "drop-mx", "expiry", "no-record", "no-file"]
    until: float | None = None
    host: str = ""


@dataclass(frozen=True, slots=True)
class Forbidden:
    """DNS has an MX host to which senders with a cached policy deliver nothing. The last copy expires at `until`.

    `current` says that the policy that is published now forbids it too.
    """

    host: str
    until: float
    current: bool


@dataclass(frozen=True, slots=True)
class Change:
    """An entry for the history: what has changed, from what, to what, and why."""

    what: Literal["added", "mode", "mx", "max_age", "record", "stage"]
    before: str
    after: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The state as it is now, and what follows from it."""

    state: State
    publication: Publication
    waits: tuple[Wait, ...]
    warnings: tuple[Forbidden, ...]
    changes: tuple[Change, ...] = ()
