"""The pages of the dashboard: those of reports, within its frame, and its own, from the templates of this folder."""

import datetime
import math
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from postfix_mtasts.publish import words
from postfix_mtasts.query.output import Status
from postfix_mtasts.reports.pages import Frame, Links, Pages, Views, said_by
from postfix_mtasts.reports.views import WINDOWS, Sender
from postfix_mtasts.reports.wording import visible
from postfix_mtasts.web.buttons import BUTTONS, Button
from postfix_mtasts.web.held import Held
from postfix_mtasts.web.overview import SIGNS, TONES, WORDS, Concern
from postfix_mtasts.web.published import Listed, Shown
from postfix_mtasts.web.reported import Kept, Lines
from postfix_mtasts.web.run import Done


class Addresses(Links):
    """The paths of pages."""

    def sources(self, days: int) -> str:
        """The view by source."""
        return f"/sources?days={days}"

    def results(self, days: int) -> str:
        """The view by result."""
        return f"/results?days={days}"

    def sources_json(self, days: int) -> str:
        """The view by source as JSON."""
        return f"/sources.json?days={days}"

    def source(self, days: int, sender: Sender) -> str:
        """The view by source with one row."""
        return f"/sources?days={days}&source={quote(sender.domain or '', safe='')}"

    def reports(self, page: int) -> str:
        """A page of the list of reports, from 1 on."""
        return f"/reports?page={page}"

    def report(self, key: str) -> str:
        """A report."""
        return f"/reports/{quote(key, safe='')}"

    def json(self, key: str) -> str:
        """A report as JSON."""
        return f"/reports/{quote(key, safe='')}.json"

    def mail(self, key: str) -> str:
        """The mail that a report came in."""
        return f"/reports/{quote(key, safe='')}.eml"

    def kept(self, number: int) -> str:
        """A mail in quarantine."""
        return f"/quarantine/{number}"

    def kept_mail(self, number: int) -> str:
        """A mail in quarantine, as it came."""
        return f"/quarantine/{number}.eml"

    def domains(self, page: int) -> str:
        """A page of the list of domains, from 1 on."""
        return f"/domains?page={page}"

    def domain(self, name: str) -> str:
        """A domain that is published."""
        return f"/domains/{quote(name, safe='')}"

    def button(self, name: str, target: str = "") -> str:
        """The page before a change."""
        return f"/do/{name}/{quote(target, safe='')}"


ADDRESSES = Addresses()
TABS = (
    ("Overview", "/"),
    ("Sources", "/sources"),
    ("Results", "/results"),
    ("Reports", "/reports"),
    ("Domains", "/domains"),
    ("Sending", "/sending"),
)
_FRAME = Frame(
    "MTA-STS",
    "postfix-mtasts-web",
    "/",
    TABS,
    package="postfix_mtasts.web",
    policy="script-src 'self'; form-action 'self'",
    referrer="same-origin",
    script="/script.js",
)


class WebPages(Pages):
    """Makes the pages of the dashboard."""

    def __init__(self) -> None:
        super().__init__(None, ADDRESSES, _FRAME)
        self._environment.filters.update(
            status_sign=SIGNS.__getitem__, status_tone=TONES.__getitem__, status_word=WORDS.__getitem__,
            day=words.day, iso=words.date, days_left=_days_left, title_of=lambda name: BUTTONS[name].title,
            whole=visible,
        )  # fmt: skip

    def overview(self, concerns: Sequence[Concern]) -> str:
        """The first page."""
        return self._render("overview.html", "Overview", concerns=concerns)

    def by_source(self, views: Views, *, opened: bool = False) -> str:
        """The view by source, or one source with all that is known of it. Each report in it has a page."""
        return self.sources(
            views, {line.key for source in views.sources.sources for line in source.reports}, opened=opened
        )

    def recent(self, found: Lines, page: int) -> str:
        """A page of the list of reports, and what is in quarantine."""
        return self._render(
            "recent.html", "Reports", lines=found.reports, page=page, more=found.more, kept=found.kept,
            kept_more=found.kept_more, days=WINDOWS[-1],
        )  # fmt: skip

    def kept(self, one: Kept) -> str:
        """A mail in quarantine."""
        return self._render("kept.html", "Reports", one=one, **(said_by(one.report, one.dkim) if one.report else {}))

    def domains(self, found: Listed) -> str:
        """The domains that are published."""
        return self._render("domains.html", "Domains", found=found)

    def domain(self, one: Shown) -> str:
        """A domain that is published."""
        return self._render("domain.html", "Domains", one=one, state=one.state)

    def sending(self, found: Held) -> str:
        """What the daemon has cached."""
        return self._render("sending.html", "Sending", found=found)

    def question(self, button: Button, target: str, token: str, *, given: Mapping[str, str], wrong: str = "") -> str:
        """What will happen, and the form that does it."""
        return self._render(
            "question.html", _tab(button), button=button, target=target, token=token, given=given, wrong=wrong,
            back=_back(button, target),
        )  # fmt: skip

    def done(self, button: Button, target: str, command: str, done: Done) -> str:
        """What a command printed."""
        return self._render(
            "done.html", _tab(button), button=button, target=target, command=command, done=done,
            back=_back(button, target), outcome=done.status if done.status in WORDS else Status.ERROR,
        )  # fmt: skip

    def trouble(self, title: str, text: str, hint: str = "") -> str:
        """A page that cannot be shown, and why."""
        return self._render("trouble.html", "", title=title, text=text, hint=hint)

    def _render(self, template: str, tab: str, **values: object) -> str:
        return super()._render(template, tab, made=datetime.datetime.now(datetime.UTC), **values)


def _days_left(end: float, made: datetime.datetime) -> int:
    """The whole days until a time; negative if it has passed."""
    return math.floor((end - made.timestamp()) / 86_400)


def _tab(button: Button) -> str:
    """The tab of the page that a button is on."""
    return next(name for name, path in TABS[1:] if button.back.startswith(path))


def _back(button: Button, target: str) -> str:
    return button.back.format(quote(target, safe=""))
