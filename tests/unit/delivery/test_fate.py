"""What follows for mail from how Postfix judges each MX host."""

import pytest

from postfix_mtasts.delivery.fate import Fate, fate_of
from postfix_mtasts.delivery.mx import NO_ADDRESS, NOT_THERE, Judgement

FINE, UNPROBED = Judgement("fine"), Judgement("unprobed")
EXPIRED = Judgement("refused", "certificate has expired")
LACKS, GONE = Judgement("refused", NO_ADDRESS), Judgement("refused", NOT_THERE)
SILENT = Judgement("unclear", "no greeting within 10 s")


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([FINE], Fate("delivered")),
        ([EXPIRED, FINE], Fate("delivered")),
        ([SILENT, UNPROBED], Fate("delivered")),
        ([EXPIRED], Fate("deferred", "its MX 0 has an expired certificate")),
        ([EXPIRED, LACKS], Fate("deferred", "its MX 0 has an expired certificate (1 more MX host fails too)")),
        ([LACKS, EXPIRED], Fate("deferred", "its MX 1 has an expired certificate (1 more MX host fails too)")),
        ([SILENT, EXPIRED], Fate("deferred", "its MX 1 has an expired certificate")),
        ([LACKS, SILENT], Fate("unclear", "its MX 1: no greeting within 10 s")),
        ([LACKS], Fate("returned", "its MX 0 has no address")),
        ([GONE, LACKS, LACKS], Fate("returned", f"its MX 0 {NOT_THERE} (2 more MX hosts fail too)")),
    ],
)
def test_fate(hosts: list[Judgement], expected: Fate) -> None:
    assert fate_of([(str(number), one) for number, one in enumerate(hosts)]) == expected
