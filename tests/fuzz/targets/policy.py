"""The policy file, and what Postfix is sent for it. PolicyError is declared."""

import base64
import re
from collections.abc import Iterator

from postfix_mtasts.config import OnTesting
from postfix_mtasts.postfix.reply import ReplyRules, Style, reply_to
from postfix_mtasts.postfix.socketmap import Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Apply
from postfix_mtasts.sts.policy import MAX_AGE_LIMIT, Mode, Policy, PolicyError, parse
from tests.fuzz.targets import cases, check_words

_DOMAIN = PolicyDomain("example.com")
_NAME = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
_LEVEL = rf"secure match=\.?{_NAME}(?::\.?{_NAME})* servername=hostname"
_ATTRIBUTES = (
    rf" policy_type=sts policy_domain=example\.com(?: mx_host_pattern=(?:\*\.)?{_NAME})+"
    rf"(?: {{ policy_string = (?:version: STSv1|mode: [a-z]+|max_age: [0-9]+|mx: (?:\*\.)?{_NAME}) }})+"
)
_REPLY = {
    (Style.PLAIN, Mode.ENFORCE): re.compile(_LEVEL),
    (Style.TLSRPT, Mode.ENFORCE): re.compile(_LEVEL + f"(?:{_ATTRIBUTES})?"),
    (Style.TLSRPT, Mode.TESTING): re.compile("may" + _ATTRIBUTES),
}


def seeds() -> Iterator[bytes]:
    for case in cases("policies.json"):
        if case.get("body_base64"):
            yield base64.b64decode(case["body_base64"])[:65536]
    head = b"version: STSv1\nmode: enforce\nmax_age: 86400\n"
    yield head + b"mx: a.b\n" * 8000
    yield head + b"".join(b"mx: a%d.example.com\n" % number for number in range(3000))
    yield head + b"mx: " + b"a." * 32000
    yield head + b"mx: a.b\n" + b"\n" * 65000
    yield head + b"mx: a.b\n" + b"mxx: a\n" * 9000
    yield head + b"mx: a.b\nx:" + b" " * 65000
    yield head + b"mx: a.b\nx:" + b"a " * 32000
    yield b" " * 65000 + head


def run(data: bytes) -> None:
    try:
        policy, findings = parse(data)
    except PolicyError as error:
        check_words(str(error))
        assert len(error.findings) <= 30
        return
    for finding in findings:
        check_words(str(finding))
    assert len(findings) <= 30
    assert 0 <= policy.max_age <= MAX_AGE_LIMIT
    assert policy.mx or policy.mode is Mode.NONE
    assert parse(str(policy).encode())[0] == policy
    _check_replies(policy)


def _check_replies(policy: Policy) -> None:
    for style in Style:
        reply = reply_to(_DOMAIN, Apply(policy), ReplyRules(style, testing=OnTesting.REPORT))
        assert reply.fits()
        check_words(reply.text)
        if reply.status is Status.OK:
            assert _REPLY[style, policy.mode].fullmatch(reply.text), reply
        else:
            assert (reply.status is Status.TEMP) == (policy.mode is Mode.ENFORCE)
