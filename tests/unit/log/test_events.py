"""Each event: its line, and the fields that journald gets; both as docs/log.md has them."""

import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from postfix_mtasts.config import DaneSetting, InetEndpoint, Level
from postfix_mtasts.log import events
from postfix_mtasts.log.events import Event
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.postfix.socketmap import Reply, Status
from postfix_mtasts.sts.decide import HadExpired, NotRenewed, PolicyChanged
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.observation import Failure, Stage
from postfix_mtasts.sts.policy import Finding, Mode, MxPattern, Policy

MANUAL = Path(__file__).parents[3] / "docs/log.md"
DOMAIN = PolicyDomain("example.com")
TCP = InetEndpoint("127.0.0.1", 8461)
ENFORCE = Policy(Mode.ENFORCE, 86400, (MxPattern("mx.example.com"),))
NONE = Policy(Mode.NONE, 86400, ())
MANY = Policy(Mode.ENFORCE, 60, tuple(MxPattern(f"mx{number}.test") for number in range(1000)))
FAILURE = Failure(Stage.RESPONSE, "status 404")

Fields = dict[str, str]


ONLY_ROOT = "only root and the daemon's user can use the control socket"


def fields(event: Event, result: str = "", *, domain: bool = False) -> Fields:
    found = {"MESSAGE_ID": event.value}
    if domain or result:
        found["MTASTS_DOMAIN"] = "example.com"
    return found | ({"MTASTS_RESULT": result} if result else {})


def decided(answer: Answer) -> Callable[[], None]:
    return partial(events.decided, DOMAIN, answer)


CONFIGURED = PolicyException("*.example.com", "2026-12-31", 0.0, "ticket 4711", Level.MAY)
ADDED = PolicyException("example.com", "2026-12-31", 0.0, "ticket 4711", added=True)
TOLD, WITHOUT = Reply(Status.OK, "may"), Reply(Status.OK, "secure match=mx.example.com servername=hostname")

EVENTS: list[tuple[Callable[[], None], list[str], Fields]] = [
    (partial(events.not_started, "no"), ["ERROR no"], fields(Event.NOT_STARTED)),
    (
        partial(events.excepted, DOMAIN, CONFIGURED, TOLD, WITHOUT),
        [
            (
                "INFO domain=example.com, an exception for *.example.com until 2026-12-31: Postfix is answered "
                '"OK may" instead of "OK secure": ticket 4711'
            )
        ],
        fields(Event.EXCEPTION_USED, domain=True),
    ),
    (
        partial(events.excepted, DOMAIN, ADDED, Reply(Status.NOTFOUND), Reply(Status.TEMP, "TXT lookup: SERVFAIL")),
        [
            (
                'INFO domain=example.com, an exception until 2026-12-31: Postfix is answered "NOTFOUND" instead of '
                '"TEMP TXT lookup: SERVFAIL": ticket 4711'
            )
        ],
        fields(Event.EXCEPTION_USED, domain=True),
    ),
    (
        partial(events.exception_ends, CONFIGURED, 3 * 86400.0),
        [
            (
                "WARNING the exception for *.example.com ends in 3 days, with 2026-12-31, and then the policy holds "
                "again: ticket 4711"
            )
        ],
        fields(Event.EXCEPTION_ENDS),
    ),
    (
        partial(events.exception_ended, CONFIGURED),
        [
            (
                "WARNING the exception for *.example.com has ended with 2026-12-31, and the policy holds again: "
                "ticket 4711; remove it from the configuration"
            )
        ],
        fields(Event.EXCEPTION_ENDED),
    ),
    (
        partial(events.exception_ended, ADDED),
        ["WARNING the exception for example.com has ended with 2026-12-31, and the policy holds again: ticket 4711"],
        fields(Event.EXCEPTION_ENDED),
    ),
    (
        partial(events.exception_added, ADDED),
        ["INFO exception added for example.com, until 2026-12-31, level none: ticket 4711"],
        fields(Event.EXCEPTION_CHANGED),
    ),
    (
        partial(events.exception_removed, ADDED),
        ["INFO exception removed for example.com, which was until 2026-12-31: ticket 4711"],
        fields(Event.EXCEPTION_CHANGED),
    ),
    (
        partial(events.exceptions_trouble, "/x: permission denied"),
        [
            (
                "ERROR exceptions that were added by command: /x: permission denied; those that are known hold, and "
                "no others"
            )
        ],
        fields(Event.EXCEPTION_TROUBLE),
    ),
    (partial(events.ready, "x = y"), ["INFO ready; for main.cf: x = y"], fields(Event.READY)),
    (
        partial(events.ready, "x = y", enforce=False),
        ["INFO ready; for main.cf: x = y; no policy is enforced (reply.enforce = false)"],
        fields(Event.READY),
    ),
    (
        partial(events.shadow, "2026-11-29"),
        [
            (
                "WARNING no policy is enforced since 2026-11-29 (reply.enforce = false); "
                "`postfix-mtasts-query shadow` says what would stop"
            )
        ],
        fields(Event.SHADOW),
    ),
    (
        partial(events.shadow_ended, "2026-11-29"),
        ["INFO policies are enforced; they were not since 2026-11-29 (reply.enforce = false)"],
        fields(Event.SHADOW),
    ),
    (
        partial(events.would_be, DOMAIN, "[example.com]:587", "deferred", "its MX x has no address"),
        [
            (
                "WARNING domain=example.com, if the policy were enforced for [example.com]:587, "
                "mail would be deferred: its MX x has no address"
            )
        ],
        fields(Event.WOULD_BE, domain=True),
    ),
    (
        partial(events.would_be, DOMAIN, "example.com", "delivered", ""),
        ["INFO domain=example.com, if the policy were enforced for example.com, mail would be delivered"],
        fields(Event.WOULD_BE, domain=True),
    ),
    (
        partial(events.would_be, DOMAIN, "example.com", "unclear", "why"),
        [
            (
                "INFO domain=example.com, if the policy were enforced for example.com, "
                "what would become of mail is unclear: why"
            )
        ],
        fields(Event.WOULD_BE, domain=True),
    ),
    (
        partial(events.would_be, DOMAIN, "example.com", "dane", ""),
        ["INFO domain=example.com, if the policy were enforced for example.com, nothing would change, DANE decides"],
        fields(Event.WOULD_BE, domain=True),
    ),
    (
        partial(events.shadow_trouble, "/x: why"),
        ["WARNING shadow mode: /x: why"],
        fields(Event.SHADOW_TROUBLE),
    ),
    (
        partial(events.listener_not_passed, TCP),
        [
            (
                "WARNING inet:127.0.0.1:8461 is in server.listen but not in the socket unit, so connections to it are "
                "refused while the daemon restarts; add it to the socket unit as ListenStream=, or remove it from "
                "server.listen"
            )
        ],
        fields(Event.LISTENER_NOT_PASSED),
    ),
    (
        partial(events.listener_not_configured, TCP, "server.listen"),
        [
            (
                "WARNING inet:127.0.0.1:8461 is in the socket unit but not in server.listen, and is served anyway; "
                "name it in server.listen, or remove it from the socket unit"
            )
        ],
        fields(Event.LISTENER_NOT_CONFIGURED),
    ),
    (
        partial(events.open_to_all, InetEndpoint("0.0.0.0", 8461), InetEndpoint("192.0.2.7", 8461)),
        [
            (
                "WARNING inet:0.0.0.0:8461 is open: whoever reaches this machine, as at inet:192.0.2.7:8461, can ask "
                "without authentication; if Postfix is on this machine, listen on 127.0.0.1, otherwise let a firewall "
                "admit your mail servers only"
            )
        ],
        fields(Event.OPEN_TO_ALL),
    ),
    (
        partial(events.reply_rules, ReplyRules(Style.PLAIN, dane=DaneSetting.YIELD), "because", "so"),
        ["INFO reply.style is plain: because", "INFO reply.dane is yield: so"],
        fields(Event.REPLY_RULES),
    ),
    (
        partial(events.no_control, "no"),
        ["INFO no control socket, so postfix-mtasts-query cannot reach the daemon: no"],
        fields(Event.NO_CONTROL),
    ),
    (partial(events.reloaded, []), ["INFO configuration reloaded"], fields(Event.RELOADED)),
    (
        partial(events.reloaded, ["dns", "cache"]),
        ["INFO configuration reloaded; restart the daemon to apply the changes in [dns], [cache]"],
        fields(Event.RELOADED),
    ),
    (
        partial(events.not_reloaded, "no"),
        ["ERROR configuration not reloaded, the previous one stays in effect: no"],
        fields(Event.NOT_RELOADED),
    ),
    (
        partial(events.not_answered, TCP, "no"),
        ["ERROR test query on inet:127.0.0.1:8461 failed: no; if this goes on, systemd restarts the daemon"],
        fields(Event.WATCHDOG),
    ),
    (partial(events.event_loop, "uvloop"), ["INFO event loop is uvloop"], fields(Event.EVENT_LOOP)),
    (
        partial(events.no_control_group, "nagios", "no such group"),
        [f"WARNING server.control_group = nagios: no such group; {ONLY_ROOT}"],
        fields(Event.NO_CONTROL_GROUP),
    ),
    (events.stopping, ["INFO stopping"], fields(Event.STOPPING)),
    (
        decided(Apply(ENFORCE, fetched=True)),
        ["INFO domain=example.com, fetched: mode=enforce, max_age=86400, mx=mx.example.com"],
        fields(Event.DECIDED, "enforce"),
    ),
    (
        decided(Apply(Policy(Mode.TESTING, 60, ENFORCE.mx), fetched=True)),
        ["INFO domain=example.com, fetched: mode=testing, max_age=60, mx=mx.example.com"],
        fields(Event.DECIDED, "testing"),
    ),
    (
        decided(Apply(NONE, fetched=True)),
        ["INFO domain=example.com, fetched: mode=none, max_age=86400"],
        fields(Event.DECIDED, "none"),
    ),
    (
        decided(NoPolicy("no record: 100 %s")),
        ["INFO domain=example.com, no policy: no record: 100 %s"],
        fields(Event.DECIDED, "no-policy"),
    ),
    (
        decided(Apply(MANY)),
        [
            (
                "INFO domain=example.com, fetched: mode=enforce, max_age=60, mx="
                f"{':'.join(f'mx{number}.test' for number in range(10))} and 990 more"
            )
        ],
        fields(Event.DECIDED, "enforce"),
    ),
    (
        decided(YieldToDane(("a.test",), only=True)),
        [
            (
                "INFO domain=example.com, DANE takes precedence over MTA-STS: TLSA records of a.test;"
                " no mail to the other MX hosts, which the enforced policy protects"
            )
        ],
        fields(Event.DECIDED, "dane"),
    ),
    (
        decided(YieldToDane(("a.test", "b.test"))),
        ["INFO domain=example.com, DANE takes precedence over MTA-STS: TLSA records of a.test, b.test"],
        fields(Event.DECIDED, "dane"),
    ),
    (
        decided(Unavailable(FAILURE)),
        ["WARNING domain=example.com, policy unavailable: HTTP response: status 404 (sts-policy-fetch-error)"],
        fields(Event.DECIDED, "unavailable"),
    ),
    (
        decided(Unavailable(Failure(Stage.TLSA, "SERVFAIL", None), defer=True)),
        ["WARNING domain=example.com, mail is deferred: TLSA lookup: SERVFAIL"],
        fields(Event.DECIDED, "deferred"),
    ),
    (
        partial(events.found_in_policy, DOMAIN, (Finding(1, "a"), Finding(2, "b"))),
        ["WARNING domain=example.com, policy is valid, but its file should be corrected: line 1: a; line 2: b"],
        fields(Event.POLICY_FINDINGS, domain=True),
    ),
    (
        partial(events.noticed, DOMAIN, PolicyChanged(ENFORCE, NONE)),
        [
            (
                "WARNING domain=example.com, policy changed: now mode=none, max_age=86400; "
                "before mode=enforce, max_age=86400, mx=mx.example.com"
            )
        ],
        fields(Event.POLICY_CHANGED, domain=True),
    ),
    (
        partial(events.noticed, DOMAIN, PolicyChanged(NONE, ENFORCE)),
        [
            (
                "INFO domain=example.com, policy changed: now mode=enforce, max_age=86400, mx=mx.example.com; "
                "before mode=none, max_age=86400"
            )
        ],
        fields(Event.POLICY_CHANGED, domain=True),
    ),
    (
        partial(events.noticed, DOMAIN, NotRenewed("no", 7200, urgent=False)),
        ["WARNING domain=example.com, policy could not be renewed and expires in 2 hours: no"],
        fields(Event.POLICY_NOT_RENEWED, domain=True),
    ),
    (
        partial(events.noticed, DOMAIN, NotRenewed("no", 7200, urgent=True)),
        ["ERROR domain=example.com, policy could not be renewed and expires in 2 hours: no"],
        fields(Event.POLICY_NOT_RENEWED, domain=True),
    ),
    (
        partial(events.noticed, DOMAIN, HadExpired(NONE, 60)),
        ["WARNING domain=example.com, its policy expired 60 seconds ago: mode=none, max_age=86400"],
        fields(Event.POLICY_EXPIRED, domain=True),
    ),
    (
        partial(events.not_socketmap, "[::1]:1", "no"),
        ["ERROR client=[::1]:1 does not speak socketmap: no"],
        fields(Event.NOT_SOCKETMAP),
    ),
    (
        partial(events.row_ignored, DOMAIN, "no"),
        ["WARNING domain=example.com, its row in cache.path cannot be understood: no"],
        fields(Event.ROW_IGNORED, domain=True),
    ),
    (
        partial(events.database_trouble, "no"),
        ["ERROR cache.path: no; queries are still answered, and writes are tried again"],
        fields(Event.DATABASE_TROUBLE),
    ),
    (
        partial(events.fleet_works, "rediss://cache.example:6380"),
        ["INFO fleet: policies are shared on rediss://cache.example:6380"],
        fields(Event.FLEET_WORKS),
    ),
    (
        partial(events.fleet_trouble, "rediss://cache.example:6380", "no"),
        ["WARNING fleet: rediss://cache.example:6380: no"],
        fields(Event.FLEET_TROUBLE),
    ),
    (partial(events.internal_error, ValueError("x")), ["ERROR internal error"], fields(Event.INTERNAL_ERROR)),
]


@pytest.mark.parametrize(("tell", "lines", "expected"), EVENTS)
def test_the_lines_and_fields_of_an_event(
    tell: Callable[[], None], lines: list[str], expected: Fields, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tell()
    assert [f"{record.levelname} {record.getMessage()}" for record in caplog.records] == lines
    assert [record.__dict__["journal"] for record in caplog.records] == [expected] * len(lines)


LONG = ".".join(["x" * 62] * 4)
LONG_DOMAIN = PolicyDomain(f"{LONG[:-9]}.a")
LONG_POLICY = Policy(Mode.ENFORCE, 31557600, tuple(MxPattern(f"*.{LONG}") for _ in range(300)))


@pytest.mark.parametrize(
    "tell",
    [
        partial(events.decided, LONG_DOMAIN, Apply(LONG_POLICY, fetched=True)),
        partial(events.decided, LONG_DOMAIN, YieldToDane((LONG,) * 20, only=True)),
        partial(events.noticed, LONG_DOMAIN, PolicyChanged(LONG_POLICY, LONG_POLICY)),
        partial(events.found_in_policy, LONG_DOMAIN, (Finding(1, "x" * 60),) * 20),
    ],
)
def test_a_line_has_a_thousand_octets_at_most(tell: Callable[[], None], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tell()
    (line,) = [f"warning: {record.getMessage()}" for record in caplog.records]
    assert 300 < len(line.encode()) <= 1000
    assert re.search(r" and \d+ more", line)


def test_each_kind_of_event_is_tested_here_and_has_an_id_of_its_own() -> None:
    assert {expected["MESSAGE_ID"] for _, _, expected in EVENTS} == {event.value for event in Event}
    # Two names of one value are one member.
    assert list(Event.__members__) == [event.name for event in Event]
    assert [event.name for event in Event if not re.fullmatch("[0-9a-f]{32}", event.value)] == []


def test_the_manual_has_the_kinds_of_events() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| `([0-9a-f]+)` \| .+ \|$", MANUAL.read_text(), re.MULTILINE)
    assert rows == [(event.name, event.value) for event in Event]


def test_the_manual_has_the_results() -> None:
    table = MANUAL.read_text().partition("| `MTASTS_RESULT` | what was found out |")[2].partition("\n\n")[0]
    words = [word for row in re.findall(r"^\| (`.+`) \|", table, re.MULTILINE) for word in re.findall("`(.+?)`", row)]
    assert sorted(words) == sorted({expected.get("MTASTS_RESULT", "") for _, _, expected in EVENTS} - {""})
