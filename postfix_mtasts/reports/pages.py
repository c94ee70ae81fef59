"""Reports as HTML: the views, a list of reports, and each report. A page is complete in itself, and has no script.

What reports say is escaped by Jinja, after `wording.shown`. Nothing of it becomes an address, a name of a file, or part
of the style. A content security policy in each page forbids all but the page's own style and icon.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from urllib.parse import quote

import jinja2
import markupsafe

from postfix_mtasts import __version__
from postfix_mtasts.counting import counted, times
from postfix_mtasts.reports import headline
from postfix_mtasts.reports.chart import chart
from postfix_mtasts.reports.facts import Stored
from postfix_mtasts.reports.meaning import meaning
from postfix_mtasts.reports.report import Dkim, DkimState, Report
from postfix_mtasts.reports.viewing import Facts, Limits, by_result, by_source
from postfix_mtasts.reports.views import WINDOWS, ResultsView, Sender, SourcesView, Window
from postfix_mtasts.reports.wording import SIGNS, TONES, WORDS, moment, number, share, shown

INDEX = "index.html"
# What a view lists. With the longest texts everywhere, its page has 4 MB; usual ones have a tenth of a megabyte.
LIMITS = Limits(rows=50, failures=20, reports=30, policies=20, mx=20)
MAX_FAILURES = 100  # Of one report, that its page lists. Its JSON has all.

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path fill="#1c5bb8" d="M12 1 3 4.5v7c0 5.5 3.800'
    ' 9.5 9 11.5 5.2-2 9-6 9-11.5v-7z"/><path fill="none" stroke="#fff" stroke-width="2" d="m7.5 9 4.5 3.5L16.5'
    ' 9M7.5 9h9v6.5h-9z"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Views:
    """Both views of a window."""

    sources: SourcesView
    results: ResultsView


def views(span: Window, found: Facts, limits: Limits = LIMITS) -> Views:
    """The views of a window of which this is known."""
    return Views(by_source(span, None, found, limits), by_result(span, None, found, limits))


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the list of reports."""

    key: str
    sender: Sender
    organization: str | None
    start: datetime
    end: datetime
    domain: str | None
    successful: int
    failed: int


def listed(stored: Stored) -> Listed:
    """The line of a report, with no more than is shown."""
    policies = stored.report.policies
    domain = policies[0].domain if policies else None
    organization = stored.report.organization
    return Listed(
        key=stored.key,
        sender=sender_of(stored),
        organization=shown(organization) if organization else None,
        start=stored.report.start,
        end=stored.report.end,
        domain=shown(domain) if domain else None,
        successful=sum(policy.successful for policy in policies),
        failed=sum(policy.failed for policy in policies),
    )


def sender_of(stored: Stored) -> Sender:
    """Who sent a report."""
    return Sender(stored.dkim.domain, stored.dkim.state is DkimState.VERIFIED)


class Links:
    """Addresses of pages, relative to any of them. They are names of files too."""

    def sources(self, days: int) -> str:
        """The view by source. One of them is what a web server shows first."""
        return "index.html" if days == 14 else f"sources-{days}.html"

    def results(self, days: int) -> str:
        """The view by result."""
        return f"results-{days}.html"

    def reports(self, page: int) -> str:
        """A page of the list of reports, from 1 on."""
        return f"reports-{page}.html"

    def source(self, days: int, sender: Sender) -> str:
        """The view by source with one row, if that is another page; empty if a row has all within it."""
        return ""

    def report(self, key: str) -> str:
        """A report."""
        return f"report-{key}.html"

    def json(self, key: str) -> str:
        """A report as JSON."""
        return f"report-{key}.json"


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around each page, and the package that has more templates and style, if it is not this one.

    `tabs` are the names and addresses of views. `policy` is added to the content security policy. Browsers tell where a
    form was sent from only if the policy for `referrer` lets them.
    """

    name: str
    program: str
    home: str
    tabs: tuple[tuple[str, str], ...]
    package: str = ""
    policy: str = "form-action 'none'"
    referrer: str = "no-referrer"
    script: str = ""


def _alone(links: Links) -> Frame:
    """The frame of pages that are files."""
    tabs = (("Sources", links.sources(14)), ("Results", links.results(14)), ("Reports", links.reports(1)))
    return Frame("TLS reports", "postfix-mtasts-reports", links.sources(14), tabs)


class Pages:
    """Makes pages. `made` is the time that they tell."""

    def __init__(self, made: datetime | None, links: Links, frame: Frame | None = None) -> None:
        frame = frame or _alone(links)
        packages = [one for one in (frame.package, "postfix_mtasts.reports") if one]
        self._environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader([jinja2.PackageLoader(one) for one in packages]),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update(
            shown=shown, number=number, share=share, moment=moment, counted=counted, times=times,
            sign_of=SIGNS.__getitem__, word=WORDS.__getitem__, tone=TONES.__getitem__,
        )  # fmt: skip
        style = " ".join(_style(one) for one in reversed(packages))
        self.security_policy = f"{_content_security_policy(style)}; {frame.policy}"
        self._environment.globals.update(
            style=markupsafe.Markup(style),  # noqa: S704 - it is a file of ours
            security_policy=self.security_policy,
            frame=frame,
            icon="data:image/svg+xml," + quote(_ICON),
            link=links,
            said=_said,
            made=made,
            version=__version__,
            windows=WINDOWS,
        )

    def sources(self, views: Views, keys: Collection[str], *, opened: bool = False) -> str:
        """The view by source. `keys` are those of reports that have pages; `opened` if a row is open from the start."""
        rows = [(source, chart(source.days)) for source in views.sources.sources]
        return self._render(
            "sources.html", "Sources", **_above(views), view=views.sources, rows=rows, pages=keys, opened=opened,
            hidden=[Sender(name, verified=True) for name in views.sources.hidden],
        )  # fmt: skip

    def results(self, views: Views) -> str:
        """The view by result."""
        last = max((day.date for day in views.results.days if day.successful), default=None)
        return self._render("results.html", "Results", **_above(views), view=views.results, last_success=last)

    def reports(self, page: int, lines: Sequence[Listed], *, page_count: int, line_count: int, more: bool) -> str:
        """A page of the list of reports. `more` says that there are reports that have no pages."""
        return self._render(
            "reports.html", "Reports", page=page, lines=lines, page_count=page_count, line_count=line_count, more=more,
            days=WINDOWS[-1],
        )  # fmt: skip

    def report(self, stored: Stored) -> str:
        """A report."""
        return self._render(
            "report.html", "Reports", key=stored.key, headline=headline.of_report(stored.report, sender_of(stored)),
            **said_by(stored.report, stored.dkim),
        )  # fmt: skip

    def _render(self, template: str, tab: str, **values: object) -> str:
        return self._environment.get_template(template).render(tab=tab, **values)


def said_by(report: Report, dkim: Dkim) -> dict[str, object]:
    """What the page of a report has of it."""
    failures = [failure for policy in report.policies for failure in policy.failures]
    shown_failures = [(one, meaning(one.result, one.code)) for one in failures[:MAX_FAILURES]]
    return {
        "report": report,
        "dkim": dkim,
        "sender": Sender(dkim.domain, dkim.state is DkimState.VERIFIED),
        "failures": shown_failures,
        "more_failures": len(failures) - len(shown_failures),
        "meanings": list(dict.fromkeys((one.result, means.text) for one, means in shown_failures)),
    }


def _above(views: Views) -> dict[str, object]:
    """What stands above both views."""
    return {
        "length": len(views.results.days),
        "total": views.results,
        "chart": chart(views.results.days),
        "headline": headline.of_view(views.results),
        "last_day": max((day.date for day in views.results.days if day.successful or day.failed), default=None),
        "source_count": len({one.sender.domain for one in views.sources.sources}.union(views.sources.hidden))
        + views.sources.more,
    }


def _said(text: str | None, otherwise: str = "not given") -> markupsafe.Markup:
    """What a report says, apart from what stands around it. Markup escapes what is added to it."""
    if not text:
        return markupsafe.Markup('<span class="soft">') + otherwise + markupsafe.Markup("</span>")
    return markupsafe.Markup('<bdi class="said">') + shown(text) + markupsafe.Markup("</bdi>")


def _style(package: str) -> str:
    """The style of all pages, without comments and indentation: it is part of each."""
    name = "style.css" if package == "postfix_mtasts.reports" else "more.css"
    text = resources.files(package).joinpath(f"templates/{name}").read_text("utf-8")
    return re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)).strip()


def _content_security_policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'"
