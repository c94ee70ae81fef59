"""What an administrator may set in Postfix, and a sender in a message, beside the policies of domains."""

import pytest

from tests.e2e.vocabulary import (
    CLEAR,
    MISMATCH,
    NOT_OFFERED,
    STYLES,
    TLSRPT_SINCE,
    TRUSTED,
    UNTRUSTED,
    VERIFIED,
    Outcome,
    applied,
    enforce,
    in_style,
    outcome,
    policy,
)
from tests.world.mail import LISTEN, RECORD, Certificate, Extras, SmtpClient, World


@pytest.fixture(scope="module")
def extras() -> Extras:
    return Extras(
        clients=(
            SmtpClient(".no-ca.test", {"smtp_tls_CAfile": ""}),
            SmtpClient(".encrypt.test", {"smtp_tls_security_level": "encrypt"}),
            SmtpClient(".secure.test", {"smtp_tls_security_level": "secure"}),
            SmtpClient(
                ".unchecked.test",
                {"smtp_tls_policy_maps": STYLES["tlsrpt"], "smtp_tls_enforce_sts_mx_patterns": "no"},
            ),
        ),
    )


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        pytest.param("enforce", MISMATCH._replace(mistrust="untrusted issuer /CN=Test CA"), id="enforce"),
        pytest.param("testing", UNTRUSTED, id="testing"),
    ],
)
def test_without_cas_nobody_is_verified(world: World, mode: str, expected: Outcome) -> None:
    domain = f"{mode}.no-ca.test"
    world.add(domain, "good", policy(mode, f"mx.{domain}"))
    assert outcome(world.postfix.deliver(f"user@{domain}")) == expected


# The policy file of a domain D, or None, and its record, if mail to the domain is not enforced.
LENIENT: dict[str, tuple[str | None, bytes | None]] = {
    "testing": (policy("testing", "mx.D"), RECORD),
    "none": (policy("none"), RECORD),
    "no-record": (policy("enforce", "mx.D"), None),
    "unreachable": (None, RECORD),
    "invalid": (policy("enforce"), RECORD),
}


@pytest.mark.parametrize(
    ("level", "certificate", "expected"),
    [
        pytest.param("encrypt", None, NOT_OFFERED, id="encrypt and no STARTTLS"),
        pytest.param("secure", "wrong name", MISMATCH, id="secure and a wrong name"),
        pytest.param("secure", "good", VERIFIED, id="secure and a good certificate"),
    ],
)
@pytest.mark.parametrize("name", LENIENT)
def test_a_stricter_level_stays(
    world: World, name: str, level: str, certificate: Certificate, expected: Outcome
) -> None:
    domain = f"{name}.{certificate or 'clear'}.{level}.test".replace(" ", "-")
    text, record = LENIENT[name]
    world.add(domain, certificate, text and text.replace("D", domain), record)
    assert outcome(world.postfix.deliver(f"user@{domain}")) == expected


@pytest.mark.parametrize("level", ["may", "encrypt"])
@pytest.mark.parametrize(
    ("certificate", "enforced", "waived"),
    [
        pytest.param("wrong name", MISMATCH, TRUSTED, id="wrong name"),
        pytest.param(None, NOT_OFFERED, CLEAR, id="no STARTTLS"),
    ],
)
def test_a_sender_who_requires_no_tls(
    world: World, level: str, certificate: Certificate, enforced: Outcome, waived: Outcome
) -> None:
    """Later versions of Postfix do as the header says (RFC 8689, 5), and do not ask for a policy."""
    domain = f"{'clear' if certificate is None else 'wrong'}.required.{level}.test"
    world.add(domain, certificate, enforce(domain))
    heeded = world.postfix.version >= TLSRPT_SINCE
    delivery = world.postfix.deliver(f"first@{domain}", header="TLS-Required: no")
    assert outcome(delivery) == (waived if heeded else enforced)
    assert world.daemon.about(domain, LISTEN) == ([] if heeded else [applied(domain)])
    assert outcome(world.postfix.deliver(f"second@{domain}")) == enforced
    assert world.daemon.wait_for(f"domain={domain},") == applied(domain)


def test_the_check_of_mx_names_can_be_switched_off(world: World) -> None:
    domain = "foreign.unchecked.test"
    world.publish(domain, enforce(domain))
    world.dns.add(domain, "MX", f"10 mx.other.{domain}.")
    world.mail_server(f"mx.other.{domain}", world.mail_server_context(domain, "good"))
    expected = in_style("tlsrpt", world.postfix.version, VERIFIED)
    assert outcome(world.postfix.deliver(f"user@{domain}")) == expected
