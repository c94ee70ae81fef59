"""The buttons: what each asks, what it says will happen and when senders notice, and the command that it runs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from postfix_mtasts.publish.arguments import domain_of
from postfix_mtasts.query.arguments import next_hop_of
from postfix_mtasts.web.run import PUBLISH, QUERY, REPORTS, Command

MAX_TEXT = 500  # Characters of a field.


class FieldError(ValueError):
    """A field is missing or wrong. The message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form: its name, and what stands before it."""

    name: str
    label: str
    kind: str = "text"
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Button:
    """A change, or a look that takes time.

    `says` is what will happen, and `noticed` is when senders notice. `back` is the page to return to.
    """

    title: str
    says: str
    noticed: str
    back: str
    made: Callable[[str, Mapping[str, str]], Command]
    fields: tuple[Field, ...] = ()
    is_change: bool = True


def command_of(button: Button, target: str, form: Mapping[str, str]) -> Command:
    """The command that a filled form asks for. Raises FieldError, and QueryError for what is no domain."""
    return button.made(target, {field.name: _value(field, form) for field in button.fields})


def _value(field: Field, form: Mapping[str, str]) -> str:
    value = form.get(field.name, "").strip()
    if field.needed and not value:
        raise FieldError(f"{field.label}: is missing")
    if len(value) > MAX_TEXT or not value.isprintable():
        raise FieldError(f"{field.label}: write one line of at most {MAX_TEXT} characters")
    return value


def _publish(*words: str) -> Callable[[str, Mapping[str, str]], Command]:
    def made(target: str, form: Mapping[str, str]) -> Command:
        reason = (f"--force={form['reason']}",) if form.get("reason") else ()
        return Command(PUBLISH, (words[0], domain_of(target).name, *words[1:], *reason))

    return made


def _query(*words: str) -> Callable[[str, Mapping[str, str]], Command]:
    def made(target: str, form: Mapping[str, str]) -> Command:
        return Command(QUERY, (*words, next_hop_of(target).domain.name))

    return made


def _reports(*words: str) -> Callable[[str, Mapping[str, str]], Command]:
    def made(target: str, form: Mapping[str, str]) -> Command:
        if not re.fullmatch(r"[0-9]{1,15}", target):
            raise FieldError("a message has a number")
        return Command(REPORTS, (*words, target))

    return made


def _source(word: str) -> Callable[[str, Mapping[str, str]], Command]:
    def made(target: str, form: Mapping[str, str]) -> Command:
        return Command(REPORTS, (word, domain_of(target).name))

    return made


def _add(target: str, form: Mapping[str, str]) -> Command:
    hosts = form["mx"].split()
    mx = ("--mx", *hosts) if hosts else ()
    if any(host.startswith("-") for host in hosts):
        raise FieldError("MX hosts: write names of hosts")
    return Command(PUBLISH, ("add", domain_of(form["domain"]).name, *mx))


def _except(target: str, form: Mapping[str, str]) -> Command:
    words = (_exempt(form["domain"] or target), f"--until={form['until']}", f"--reason={form['reason']}")
    return Command(QUERY, ("except", "add", *words))


def _unexcept(target: str, form: Mapping[str, str]) -> Command:
    return Command(QUERY, ("except", "remove", _exempt(target)))


def _exempt(target: str) -> str:
    """The domain of an exception, which may be for all below it."""
    below = "*." if target.startswith("*.") else ""
    return below + next_hop_of(target.removeprefix(below)).domain.name


_SOON = (
    "Senders that look at the record after its TTL of 5 minutes fetch the new policy; others when their copy expires."
)
_NOBODY = "Senders notice nothing."
_REASON = Field("reason", "Reason, if a check finds problems and it has to be done all the same", needed=False)

BUTTONS: Mapping[str, Button] = {
    "add": Button(
        "Add a domain",
        "A policy in mode testing is published for the domain, with the MX hosts in DNS, or those named here.",
        "Senders notice nothing before the three records are in DNS and a check has seen the policy file.",
        "/domains",
        _add,
        (Field("domain", "Domain"), Field("mx", "MX hosts, if not those in DNS", needed=False)),
    ),
    "check": Button(
        "Check now",
        "The domain is looked at from outside, as senders do, and what can be done next is done. It may take a minute.",
        "If a new policy has been seen, its id is put into DNS now.",
        "/domains/{}",
        _publish("check"),
    ),
    "testing": Button(
        "Change to mode testing",
        "The policy changes to mode testing: senders report failures, and deliver all the same.",
        _SOON,
        "/domains/{}",
        _publish("mode", "testing"),
    ),
    "enforce": Button(
        "Change to mode enforce",
        "The domain is checked, and then the policy changes to mode enforce: senders deliver to no MX host that the"
        " policy does not name, or whose certificate is not valid. The page of the domain says whether reports have"
        " shown that this is safe; that is not asked for here.",
        _SOON,
        "/domains/{}",
        _publish("mode", "enforce"),
        (_REASON,),
    ),
    "mx": Button(
        "Allow the MX hosts in DNS",
        "The policy names the MX hosts that DNS has now. Hosts that are gone stay until DNS has been without them for"
        " two days.",
        _SOON,
        "/domains/{}",
        _publish("mx", "--refresh"),
    ),
    "remove": Button(
        "Stop publishing",
        "Mode none is served until all other policies in caches have expired. Then the records may go, and the file.",
        _SOON,
        "/domains/{}",
        _publish("remove"),
    ),
    "forget": Button(
        "Forget a policy",
        "The daemon deletes what it has cached for the domain. Until it has found the policy again, mail to the domain"
        " is sent as if it had none.",
        "Postfix notices with the next mail; the owner of the domain notices nothing.",
        "/sending",
        _query("cache", "forget"),
    ),
    "refresh": Button(
        "Fetch a policy again",
        "The daemon looks up the record and fetches the policy now, whatever its age; a cached one stays until then.",
        "Postfix notices with the next mail.",
        "/sending",
        _query("cache", "refresh"),
    ),
    "except": Button(
        "Add an exception",
        "Until the end of that day, Postfix is answered as if the domain had no policy: its mail is sent without"
        " verified TLS. It replaces an exception for the same domain.",
        "Postfix notices with the next mail; the owner of the domain notices nothing.",
        "/sending",
        _except,
        (
            Field("domain", "Domain, or *.DOMAIN for all below it", needed=False),
            Field("until", "The last day", kind="date"),
            Field("reason", "Reason, for those who find the exception later"),
        ),
    ),
    "unexcept": Button(
        "End an exception",
        "The policy of the domain holds again at once.",
        "Postfix notices with the next mail.",
        "/sending",
        _unexcept,
    ),
    "compare": Button(
        "Compare MX hosts and policy",
        "The record, the policy and the MX hosts of the domain are looked up now, and compared. It may take a minute.",
        _NOBODY,
        "/results",
        _query(),
        is_change=False,
    ),
    "probe": Button(
        "Probe the MX hosts",
        "The record, the policy and the MX hosts are looked up, and each MX host is connected to, as Postfix would:"
        " the answer has their certificates. It may take a minute.",
        "The MX hosts log a connection in which no mail is sent.",
        "/results",
        _query("--probe"),
        is_change=False,
    ),
    "hide": Button(
        "Hide until it changes",
        "The source is left out of the view by source, and named below it. It is shown again when it reports a policy"
        " or a result type that it had not reported in 90 days, or when more than twice as many of its sessions fail on"
        " a day as on the worst of these. Its sessions are counted all the same, and alerts are sent.",
        _NOBODY,
        "/sources",
        _source("hide"),
    ),
    "unhide": Button(
        "Show again",
        "The source stands in the view by source again.",
        _NOBODY,
        "/sources",
        _source("unhide"),
    ),
    "accept": Button(
        "Accept a mail in quarantine",
        "The report in it is taken in, whatever domain it is about.",
        _NOBODY,
        "/reports",
        _reports("quarantine", "accept"),
    ),
    "drop": Button(
        "Drop a mail in quarantine",
        "The mail is deleted for good.",
        _NOBODY,
        "/reports",
        _reports("quarantine", "drop"),
    ),
}
