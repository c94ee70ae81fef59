"""What follows for mail under an enforced policy from how Postfix judges each MX host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from postfix_mtasts.delivery.mx import NO_ADDRESS, NOT_THERE, Judgement

_EXPIRED = "certificate has expired"  # In the words of OpenSSL.

Judged = Sequence[tuple[str, Judgement]]  # The MX hosts, and what Postfix makes of each under an enforced policy.


@dataclass(frozen=True, slots=True)
class Fate:
    """Mail is `delivered`, `deferred`, or `returned` to its senders, for a reason; or it is `unclear` from here."""

    state: Literal["delivered", "deferred", "returned", "unclear"]
    reason: str = ""


def fate_of(judged: Judged) -> Fate:
    """What becomes of mail. One MX host is enough to deliver it, and one that is unclear could be that."""
    refused = [(host, one) for host, one in judged if one.state == "refused"]
    unclear = [(host, one) for host, one in judged if one.state == "unclear"]
    if any(one.state in ("fine", "unprobed") for _, one in judged):
        return Fate("delivered")
    if unclear:
        return Fate("unclear", faults(unclear))
    is_lost = all(one.reason in (NO_ADDRESS, NOT_THERE) for _, one in refused)
    return Fate("returned" if is_lost else "deferred", faults(refused))


def faults(faulty: Judged) -> str:
    """What is wrong with the first of these hosts, and how many more there are."""
    host, judgement = faulty[0]
    others = len(faulty) - 1
    more = f" ({others} more MX {'hosts fail' if others > 1 else 'host fails'} too)" if others else ""
    reason = "has an expired certificate" if judgement.reason == _EXPIRED else judgement.reason
    return f"its MX {host}{' ' if reason.startswith(('is ', 'has ', 'does ')) else ': '}{reason}{more}"
