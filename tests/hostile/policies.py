"""Policy files that are none, too much, or meant for something else than this daemon: a line each."""

from collections.abc import Sequence
from functools import partial

from tests.hostile.case import KIB, MX, POLICY, SECURE, Case, Site
from tests.hostile.sites import https
from tests.world.https import answer

_policy = partial(Case, stage="policy file", octets=68 * KIB, cpu=0.3)
FULL = 65_536  # Octets of the largest file that is read.


def file(text: str | bytes) -> Site:
    """This file, in a sound response."""
    return https(answer(text))


def filled(line: str, text: str = POLICY) -> Site:
    """The policy and this line, over and over, as often as it fits."""
    return file(text + line * ((FULL - len(text)) // len(line)))


def mx(*patterns: str) -> Site:
    """A policy with these in its mx lines."""
    return file(POLICY.replace(f"mx: {MX}\n", "".join(f"mx: {pattern}\n" for pattern in patterns)))


def mode(value: str, patterns: Sequence[str] = (MX,)) -> Site:
    """A policy in this mode."""
    return file(f"version: STSv1\nmode: {value}\nmax_age: 86400\n" + "".join(f"mx: {one}\n" for one in patterns))


def age(value: str) -> Site:
    """A policy with this max_age."""
    return file(POLICY.replace("86400", value))


def secure(*names: str) -> str:
    """The reply for a policy with these MX hosts."""
    return f"OK secure match={':'.join(names)} servername=hostname"


NUMBERED = [f"{number:04}.x" for number in range(1000)]
LONG = ".".join(["x" * 62] * 4)
NO_DOT = "TEMP the mx lines of *'s policy name no MX host: they have no dot"
WRONG_VERSION = "line 1: version must be STSv1, not "
WRONG_MX = "line 3: mx {}: write one hostname, or *.domain".format
ESCAPES = "\x1b]0;owned\x07\x1b[2J"

POLICIES = [
    _policy("empty", file(""), "the file is empty"),
    _policy("64 KiB of blank lines", file("\n" * FULL), "the file is empty"),
    _policy("64 KiB of blanks", file(" " * FULL), "the file is empty"),
    _policy("64 KiB of zeros", file(bytes(FULL)), "line 1: expected name: value, got *"),
    _policy("64 KiB of 0xff", file(b"\xff" * FULL), "line 1: not UTF-8"),
    _policy("a page", file("<!DOCTYPE html>\n<html></html>\n"), "line 1: expected name: value, got '<!DOCTYPE html>'"),
    _policy("UTF-16", file(POLICY.encode("utf-16")), "line 1: not UTF-8"),
    _policy("Latin-1 in the last line", file(POLICY.encode() + b"x: caf\xe9\n"), "line 5: not UTF-8"),
    _policy("a byte order mark", file("\ufeff" + POLICY), SECURE),
    _policy("two byte order marks", file("\ufeff\ufeff" + POLICY), "line 1: expected name: value, got *"),
    _policy("no line ends", file(POLICY.replace("\n", " ")), WRONG_VERSION + "*"),
    _policy("CR alone", file(POLICY.replace("\n", "\r")), "line 1: expected name: value, got *"),
    _policy("LF CR", file(POLICY.replace("\n", "\n\r")), "line 2: expected name: value, got *"),
    _policy("U+2028 for line ends", file(POLICY.replace("\n", "\u2028")), WRONG_VERSION + "*"),
    _policy("a line of 64 KiB", file("x" * FULL), "line 1: expected name: value, got '*"),
    _policy("an extension of 64 KiB", filled("x", POLICY + "y: "), SECURE),
    _policy("extensions without end", filled("x: y\n"), SECURE),
    _policy("fields that are nearly known", filled("max_agee: 1\n"), SECURE),
    _policy("empty fields without end", filled("x:\n"), SECURE),
    _policy("blank lines without end", filled("\n"), SECURE),
    _policy("long names without end", filled(f"{'m' * 32}: y\n"), SECURE),
    _policy("versions without end", filled("version: STSv1\n"), SECURE),
    _policy("blanks behind a value", filled(" ", POLICY + "x: y"), SECURE),
    _policy("blanks in a value", file(POLICY + "x: y" + " " * 60_000 + "z\n"), SECURE),
    _policy("blanks before a colon", file(POLICY + "x" + " " * 60_000 + ": y\n"), "line 5: remove the blank after x"),
    _policy("8,000 mx, all the same", filled("mx: a.b\n"), "line 1004: more than 1000 mx lines"),
    _policy("1,001 mx", mx(*NUMBERED, "a.x"), "line 1003: more than 1000 mx lines"),
    _policy("1,000 mx", mx(*NUMBERED), secure("0000.x:*:0999.x")),
    _policy("mx of 253 characters without end", filled(f"mx: {LONG}\n"), secure(MX, LONG)),
    _policy("a NUL", file(POLICY + "x: a\0b\n"), "line 5: expected name: value, got 'x: a\\x00b'"),
    _policy("a NUL in mx", mx("mx.example.com\0.example.org"), "line 3: expected name: value, got *"),
    _policy("escapes", file(f"{ESCAPES}\n{POLICY}"), "line 1: expected name: value, got '\\x1b]0;owned\\x07\\x1b[2J'"),
    _policy("escapes of eight bits", file("version: \x9b31m\n"), WRONG_VERSION + "'\\x9b31m'"),
    _policy("a line of the log", file("version: \\ndomain=x.test, fetched: \u0085\n"), WRONG_VERSION + "'*\\x85'"),
    _policy("letters from right to left", file("version: \u202e1vSTS\n"), WRONG_VERSION + "'\\u202e1vSTS'"),
    _policy("letters that look so", file(POLICY.replace("STSv1", "SТSv1")), WRONG_VERSION + "'S\\u0422Sv1'"),
    _policy("another version", file(POLICY.replace("STSv1", "STSv2")), WRONG_VERSION + "'STSv2'"),
    _policy("another mode", mode("Enforce"), "line 2: mode must be *, not 'Enforce'"),
    _policy("two modes", file(POLICY + "mode: none\n"), SECURE),
    _policy("mode none", mode("none"), f"fetched: mode=none, max_age=86400, mx={MX}"),
    _policy("mode testing", mode("testing"), f"fetched: mode=testing, max_age=86400, mx={MX}"),
    _policy("mode testing, 1,000 mx", mode("testing", NUMBERED), "fetched: mode=testing, *:0009.x and 990 more"),
    _policy("no mx", mx(), "no mx line"),
    _policy("mx hostname", mx("hostname"), NO_DOT),
    _policy("mx nexthop", mx("nexthop"), NO_DOT),
    _policy("mx dot-nexthop", mx("dot-nexthop"), NO_DOT),
    _policy("mx of Postfix's words and a host", mx("hostname", MX, "nexthop", "dot-nexthop"), SECURE),
    _policy("mx localhost", mx("localhost"), NO_DOT),
    _policy("mx *", mx("*"), WRONG_MX("'*'")),
    _policy("mx *.", mx("*."), "line 3: mx '*.': *"),
    _policy("mx *.com", mx("*.com"), secure(".com")),
    _policy("mx .example.com", mx(".example.com"), WRONG_MX("'.example.com'")),
    _policy("mx *.*.example.com", mx("*.*.example.com"), WRONG_MX("'*.*.example.com'")),
    _policy("mx mx*.example.com", mx("mx*.example.com"), WRONG_MX("'mx*.example.com'")),
    _policy("mx and another attribute", mx(f"{MX} ciphers=null"), WRONG_MX(f"'{MX} ciphers=null'")),
    _policy("mx and a colon", mx(f"{MX}:hostname"), WRONG_MX(f"'{MX}:hostname'")),
    _policy("mx and a comma", mx(f"{MX},hostname"), WRONG_MX(f"'{MX},hostname'")),
    _policy("mx and braces", mx("{ policy_string = x }"), WRONG_MX("'{ policy_string = x }'")),
    _policy("mx $name", mx("$myhostname.example.com"), WRONG_MX("'$myhostname.example.com'")),
    _policy("mx of a pipe", mx("|/bin/sh"), WRONG_MX("'|/bin/sh'")),
    _policy("mx of a file", mx("/etc/passwd"), WRONG_MX("'/etc/passwd'")),
    _policy("mx of a netstring", mx("3:OK ,"), WRONG_MX("'3:OK ,'")),
    _policy("mx of quotes", mx("\"mx\".example.com"), "line 3: mx *: write one hostname, or *.domain"),
    _policy("mx of an address", mx("192.0.2.1"), WRONG_MX("'192.0.2.1'")),
    _policy("mx of an address in brackets", mx("[192.0.2.1]"), WRONG_MX("'[192.0.2.1]'")),
    _policy("mx that is not ASCII", mx("mx.bücher.example"), "line 3: mx *: write it in punycode (xn--*)"),
    _policy("mx with a dot at the end", mx(f"{MX}."), f"line 3: mx '{MX}.': remove the dot at the end"),
    _policy("mx of a long label", mx(f"{'x' * 64}.example.com"), "line 3: mx *: write one hostname, or *.domain"),
    _policy("mx of 300 characters", mx(".".join(["x" * 59] * 5)), "line 3: mx *: longer than * characters"),
    _policy("mx with an underscore", mx("_mx.example.com"), "line 3: mx *: write one hostname, or *.domain"),
    _policy("mx of hyphens", mx("-.example.com"), WRONG_MX("'-.example.com'")),
    _policy("one bad mx among good ones", mx(MX, "a b", "mx2.example.com"), "line 4: mx 'a b': *"),
    _policy("max_age 0", age("0"), SECURE),
    _policy("max_age of ten digits", age("9999999999"), SECURE),
    _policy("max_age of 5,000 digits", age("9" * 5000), "line 4: max_age must be a number of up to 10 digits, not '9*"),
    _policy("max_age -1", age("-1"), "line 4: max_age must be a number of up to 10 digits, not '-1'"),
    _policy("max_age 1e9", age("1e9"), "line 4: max_age must be a number of up to 10 digits, not '1e9'"),
    _policy("max_age of other digits", age("٨٦٤٠٠"), "line 4: max_age must be a number of up to 10 digits, not *"),
    _policy("max_age infinity", age("inf"), "line 4: max_age must be a number of up to 10 digits, not 'inf'"),
    _policy("no max_age", file(POLICY.replace("max_age: 86400\n", "")), "no max_age line"),
]  # fmt: skip
