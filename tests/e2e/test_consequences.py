"""What `doctor` says that follows from wrong settings does follow, with real deliveries."""

import pytest

from tests.e2e.vocabulary import CLEAR, NO_ANSWER, VERIFIED, Outcome, enforce, outcome
from tests.world.mail import MAP, Extras, SmtpClient, World

CLIENTS = (
    SmtpClient(".none.test", {"smtp_tls_security_level": "none"}),
    SmtpClient(".empty.test", {"smtp_tls_security_level": ""}),
    SmtpClient(".cas.test", {"smtp_tls_CAfile": "/dev/null"}),
    SmtpClient(".tables.test", {"smtp_tls_policy_maps": f"{MAP} texthash:/nowhere"}),
)


NO_TLS = Outcome("deferred", "4.7.5", None, "TLS is required, but our TLS engine is unavailable")


@pytest.fixture(scope="module")
def extras() -> Extras:
    return Extras(clients=CLIENTS)


@pytest.mark.parametrize("name", ["none", "empty"])
def test_policies_hold_whatever_the_level(world: World, name: str) -> None:
    world.add(f"with.{name}.test", "good", enforce(f"with.{name}.test"))
    world.add(f"without.{name}.test", "good", None, record=None)
    assert outcome(world.postfix.deliver(f"user@with.{name}.test")) == VERIFIED
    assert outcome(world.postfix.deliver(f"user@without.{name}.test")) == CLEAR


def test_there_is_no_tls_with_a_bad_ca_file(world: World) -> None:
    world.add("with.cas.test", "good", enforce("with.cas.test"))
    world.add("without.cas.test", "good", None, record=None)
    assert outcome(world.postfix.deliver("user@with.cas.test")) == NO_TLS
    assert outcome(world.postfix.deliver("user@without.cas.test")) == CLEAR


def test_all_mail_waits_for_a_table_that_is_not_there(world: World) -> None:
    world.add("without.tables.test", "good", None, record=None)
    assert outcome(world.postfix.deliver("user@without.tables.test")) == NO_ANSWER
