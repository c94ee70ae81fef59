"""What follows for mail under an enforced policy from how Postfix judges each MX host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from postfix_mtasts.counting import counted
from postfix_mtasts.delivery.mx import NO_ADDRESS, NOT_THERE, Judgement

_EXPIRED = "certificate has expired"  # In the words of OpenSSL.

Judged = Sequence[tuple[str, Judgement]]  # The MX hosts, and what Postfix makes of each under an enforced policy.


State = Literal["delivered", "deferred", "returned", "unclear", "dane"]


@dataclass(frozen=True, slots=True)
class Fate:
    """Mail is `delivered`, `deferred`, or `returned` to its senders, for a reason; or it is `unclear` from here.

    `dane`: Postfix's own level decides, with the policy as without.
    """

    state: State
    reason: str = ""


def fate_of(judged: Judged) -> Fate:
    """What becomes of mail. One MX host that is fine is enough to deliver it.

    Hosts that are unclear do not help those that are refused: as a probe could not, Postfix cannot talk to them now.
    """
    refused = [(host, one) for host, one in judged if one.state == "refused" and not _is_lost(one)]
    unclear = [(host, one) for host, one in judged if one.state == "unclear"]
    lost = [(host, one) for host, one in judged if _is_lost(one)]
    if any(one.state in ("fine", "unprobed") for _, one in judged):
        return Fate("delivered")
    if refused:
        return Fate("deferred", faults([*refused, *lost]))
    return Fate("unclear", faults(unclear)) if unclear else Fate("returned", faults(lost))


def _is_lost(judgement: Judgement) -> bool:
    """Whether Postfix passes over a host, with a policy or without."""
    return judgement.reason in (NO_ADDRESS, NOT_THERE)


def faults(faulty: Judged) -> str:
    """What is wrong with the first of these hosts, and how many more there are."""
    host, judgement = faulty[0]
    others = len(faulty) - 1
    more = f" ({counted(others, 'more MX host fails', 'more MX hosts fail')} too)" if others else ""
    reason = "has an expired certificate" if judgement.reason == _EXPIRED else judgement.reason
    return f"its MX {host}{' ' if reason.startswith(('is ', 'has ', 'does ')) else ': '}{reason}{more}"
