"""A sender who requires TLS (RFC 8689), of a Postfix that enforces that: which answers send, defer and bounce."""

import pytest

from tests.e2e.conftest import of_the_parameter
from tests.e2e.vocabulary import NO_ANSWER, VERIFIED, Outcome, outcome, policy
from tests.world.mail import RECORD, Extras, World
from tests.world.postfix import INSTALLATIONS, Installation


@pytest.fixture(scope="module", params=INSTALLATIONS[3:], ids=lambda installation: installation.name)
def installation(request: pytest.FixtureRequest) -> Installation:
    """Postfix knows REQUIRETLS since 3.11."""
    return of_the_parameter(request)


@pytest.fixture(scope="module")
def extras() -> Extras:
    return Extras(daemon={"discovery": {"on_failure": "temp"}}, settings={"smtp_requiretls_policy": "enforce"})


REFUSED = Outcome(
    *("bounced", "5.7.10", None),
    "Sender requested REQUIRETLS, but my configured TLS security level 'may' disables certificate matching."
    " The last attempted server was mx.D",
)
# The policy file of a domain D, or None, its record, and what becomes of mail.
CASES: dict[str, tuple[str | None, bytes | None, Outcome]] = {
    "enforce": (policy("enforce", "mx.D"), RECORD, VERIFIED),
    "testing": (policy("testing", "mx.D"), RECORD, REFUSED),
    "no-record": (None, None, REFUSED),
    # With on_failure = "notfound", this would be as without a record.
    "unreachable": (None, RECORD, NO_ANSWER),
}


@pytest.mark.parametrize("name", CASES)
def test_a_sender_who_requires_tls(world: World, name: str) -> None:
    text, record, expected = CASES[name]
    domain = f"{name}.required.test"
    world.add(domain, "good", text and text.replace("D", domain), record)
    delivery = world.postfix.deliver(f"user@{domain}", header="Require-TLS-ESMTP: yes")
    assert outcome(delivery) == expected._replace(text=expected.text.replace("mx.D", f"mx.{domain}"))
