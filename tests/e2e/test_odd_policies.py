"""Policy files that want to harm Postfix, or are large: what Postfix is told of them, and what becomes of mail."""

from typing import Literal

import pytest

from tests.e2e.vocabulary import (
    MISMATCH,
    STYLES,
    TRUSTED,
    VERIFIED,
    Outcome,
    attributes,
    enforce,
    in_style,
    outcome,
    policy,
    secure,
)
from tests.world.mail import Extras, SmtpClient, World

ELSEWHERE = "mx.elsewhere.test"  # The name in a certificate with a wrong name.
MAX_SIZE = 65_536  # Octets of a policy file.


@pytest.fixture(scope="module")
def extras() -> Extras:
    return Extras(
        clients=tuple(SmtpClient(f".{style}.test", {"smtp_tls_policy_maps": of}) for style, of in STYLES.items())
    )


def good_and_bad(world: World, domain: str, text: str) -> list[Outcome]:
    """What becomes of mail to a domain with this policy file: when its certificate is good, and has a wrong name."""
    server = world.add(domain, "good", text)
    outcomes = [outcome(world.postfix.deliver(f"good@{domain}"))]
    server.context = world.mail_server_context(domain, "wrong name")
    return [*outcomes, outcome(world.postfix.deliver(f"bad@{domain}"))]


HARMLESS = {
    "match": f"x: a }} match={ELSEWHERE} {{ policy_string = y: b",
    "tafile": "x: a } tafile=/etc/shadow { policy_string = y: b",
    "level": "x: } none {",
    "closing-brace": "x: }",
    "opening-brace": "x: {",
    "utf-8": "x: bücher.test 邮件",
    # No line ends at U+2028.
    "line-separator": f"x: a\u2028mx: {ELSEWHERE}",
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", HARMLESS)
def test_an_extension_field_never_reaches_postfix(world: World, name: str, style: str) -> None:
    domain = f"{name}.{style}.test"
    outcomes = good_and_bad(world, domain, f"{enforce(domain)}{HARMLESS[name]}\r\n")
    assert outcomes == [
        in_style(style, world.postfix.version, VERIFIED),
        in_style(style, world.postfix.version, MISMATCH),
    ]
    mx = f"mx.{domain}"
    more = attributes(domain, mx, "version: STSv1", "mode: enforce", f"mx: {mx}", "max_age: 604800")
    assert world.postfix.postmap_q(STYLES[style], domain) == secure(mx) + ("" if style == "plain" else more)


NO_FIELD = "expected name: value, got {!a}"
NO_HOSTNAME = "mx {!a}: write one hostname, or *.domain"
# The name of a field, its value, and what the log says of the value or of the line.
INVALID = {
    "nul": ("x", "a\0b", NO_FIELD),
    "cr": ("x", f"a\rmx: {ELSEWHERE}", NO_FIELD),
    "escape": ("x", "\x1b[2J", NO_FIELD),
    "attribute": ("mx", f"mx.D match={ELSEWHERE}", NO_HOSTNAME),
    "colon": ("mx", f"mx.D:{ELSEWHERE}", NO_HOSTNAME),
    "braces": ("mx", "{ mx.D }", NO_HOSTNAME),
    "any-name": ("mx", "*", NO_HOSTNAME),
    "first-dot": ("mx", ".elsewhere.test", NO_HOSTNAME),
    "last-dot": ("mx", f"{ELSEWHERE}.", "mx {!a}: remove the dot at the end"),
    "unicode": ("mx", "mx.bücher.test", "mx {!a}: write it in punycode (xn--…)"),
}


@pytest.mark.parametrize("name", INVALID)
def test_one_bad_line_voids_a_policy(world: World, name: str) -> None:
    domain = f"{name}.tlsrpt.test"
    field, value, why = INVALID[name]
    world.add(domain, "wrong name", f"{enforce(domain)}{field}: {value}\r\n")
    assert outcome(world.postfix.deliver(f"user@{domain}")) == TRUSTED
    assert world.postfix.postmap_q(STYLES["tlsrpt"], domain) is None
    said = why.format(f"{field}: {value}" if why is NO_FIELD else value)
    line = f"warning: domain={domain}, policy unavailable: policy file: line 5: {said} (sts-policy-invalid)"
    assert world.daemon.wait_for(f"domain={domain},") == line


Form = Literal["plain", "one string", "all"]
# How many mx lines of about how many characters, and the form of the reply in style tlsrpt.
LARGE: dict[str, tuple[int, int, Form]] = {
    "300-names": (300, 30, "all"),
    "49-kb": (230, 200, "one string"),
    "54-kb": (260, 200, "plain"),
    "64-kib": (315, 200, "plain"),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", LARGE)
def test_a_large_policy(world: World, name: str, style: str) -> None:
    """Up to the largest that is taken, its MX hosts fit into a reply; what else fits goes with them."""
    number, length, form = LARGE[name]
    domain = f"{name}.{style}.test"
    labels = ".x" * ((length - len(f"000.{domain}")) // 2)
    patterns = [*(f"{n:03}{labels}.{domain}" for n in range(number - 1)), f"mx.{domain}"]
    text = policy("enforce", *patterns)
    if name == "64-kib":
        text += "x: ".ljust(MAX_SIZE - len(text), "x")
        assert len(text) == MAX_SIZE
    outcomes = good_and_bad(world, domain, text)
    if style == "plain" or form == "plain":
        assert outcomes == [VERIFIED, MISMATCH]
    else:
        assert outcomes == [
            in_style(style, world.postfix.version, VERIFIED),
            in_style(style, world.postfix.version, MISMATCH),
        ]
    mx = ":".join(patterns)
    lines = text.splitlines()
    more = {"plain": "", "one string": attributes(domain, mx, lines[0]), "all": attributes(domain, mx, *lines)}
    assert world.postfix.postmap_q(STYLES[style], domain) == secure(mx) + more["plain" if style == "plain" else form]
