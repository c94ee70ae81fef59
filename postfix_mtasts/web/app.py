"""The paths of the dashboard, and what each shows or does."""

import asyncio
import datetime
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from postfix_mtasts.config import Config
from postfix_mtasts.publish.arguments import domain_of
from postfix_mtasts.publish.store import StoreError as PublishError
from postfix_mtasts.query.output import QueryError, Status
from postfix_mtasts.reports.actions import quarantined
from postfix_mtasts.reports.facts import facts, recent, stored
from postfix_mtasts.reports.pages import WINDOWS, views
from postfix_mtasts.reports.report import Reading
from postfix_mtasts.reports.show import document
from postfix_mtasts.reports.store import Store, StoreError
from postfix_mtasts.reports.viewing import Limits
from postfix_mtasts.reports.views import DAYS, window
from postfix_mtasts.web.buttons import BUTTONS, FieldError
from postfix_mtasts.web.guard import Guard
from postfix_mtasts.web.held import held
from postfix_mtasts.web.helper import Hands
from postfix_mtasts.web.overview import concerns
from postfix_mtasts.web.pages import WebPages
from postfix_mtasts.web.published import listed, shown

# What a view lists, so that its page has at most 200 kB of usual texts.
LIMITS = Limits(rows=25, failures=8, reports=8, policies=8, mx=8)
MAX_SOURCES = 200  # Among which one is looked for, to show it alone.
PAGE = 100  # Reports of a page of the list, and mails in quarantine.
_KEY = re.compile(r"[0-9a-f]{1,64}")


def application(settings: Config, token: bytes, hands: Hands) -> Guard:
    """The dashboard, as an ASGI application."""
    site = Site(settings, hands)
    starlette = Starlette(
        routes=[
            Route("/", site.overview),
            Route("/script.js", _script),
            Route("/sources", site.sources),
            Route("/results", site.results),
            Route("/reports", site.reports),
            Route("/reports/{key}.json", site.json),
            Route("/reports/{key}.eml", site.mail),
            Route("/reports/{key}", site.report),
            Route("/domains", site.domains),
            Route("/domains/{domain}", site.domain),
            Route("/sending", site.sending),
            Route("/do/{button}/{target:path}", site.do, methods=["GET", "POST"]),
        ],
        exception_handlers={
            HTTPException: site.missing,
            StoreError: site.unavailable,
            PublishError: site.unavailable,
            QueryError: site.unavailable,
        },
    )
    site.guard = Guard(starlette, settings.web, token, site.pages.security_policy)
    return site.guard


def _script(_: Request) -> Response:
    text = resources.files("postfix_mtasts.web").joinpath("templates/script.js").read_bytes()
    return Response(text, media_type="text/javascript")


class Site:
    """What each path shows. All that reads is done in threads."""

    guard: Guard

    def __init__(self, settings: Config, hands: Hands) -> None:
        self.pages = WebPages()
        self._settings = settings
        self._hands = hands

    def overview(self, _: Request) -> Response:
        """The first page."""
        return HTMLResponse(self.pages.overview(concerns(self._settings, _now())))

    def sources(self, request: Request) -> Response:
        """The view by source."""
        span = window(_now().date(), _days(request))
        wanted = request.query_params.get("source")
        limits = LIMITS if wanted is None else replace(LIMITS, rows=MAX_SOURCES)
        with self._reports() as store:
            found = views(span, facts(store, span, None, limits, unverified=False), limits)
        if wanted is not None:
            rows = tuple(one for one in found.sources.sources if (one.sender.domain or "") == wanted)
            if not rows:
                raise HTTPException(404, "No such source reported in these days.")
            found = replace(found, sources=replace(found.sources, sources=rows, more=0))
        keys = {line.key for source in found.sources.sources for line in source.reports}
        return HTMLResponse(self.pages.sources(found, keys, opened=wanted is not None))

    def results(self, request: Request) -> Response:
        """The view by result."""
        span = window(_now().date(), _days(request))
        with self._reports() as store:
            found = views(span, facts(store, span, None, LIMITS, unverified=False), LIMITS)
        return HTMLResponse(self.pages.results(found))

    def reports(self, request: Request) -> Response:
        """The list of reports, and the quarantine."""
        page, span = _page(request), window(_now().date(), WINDOWS[-1])
        with self._reports() as store:
            lines = recent(store, span, (page - 1) * PAGE, PAGE + 1)
            kept = quarantined(store)
        return HTMLResponse(
            self.pages.recent(lines[:PAGE], page, more=len(lines) > PAGE, kept=kept[:PAGE], kept_more=len(kept[PAGE:]))
        )

    def report(self, request: Request) -> Response:
        """A report."""
        with self._reports() as store:
            found = stored(store, _key(request))
        if not found:
            raise HTTPException(404)
        return HTMLResponse(self.pages.report(found[0]))

    def json(self, request: Request) -> Response:
        """A report as JSON."""
        key = _key(request)
        with self._reports() as store:
            found = stored(store, key)
        if not found:
            raise HTTPException(404)
        made = json.dumps(document(Reading(f"{key}.json", found[0].report, found[0].dkim)), allow_nan=False)
        return _file(made.encode() + b"\n", f"{key}.json", "application/json")

    def mail(self, request: Request) -> Response:
        """The mail that a report came in."""
        key = _key(request)
        with self._reports() as store:
            found = stored(store, key)
        if not found:
            raise HTTPException(404)
        try:
            text = self._hands.mail(found[0].message)
        except OSError as error:
            raise HTTPException(404, "The mail is not kept any more: see reports.keep_mails.") from error
        return _file(text, f"{key}.eml", "application/octet-stream")

    def domains(self, request: Request) -> Response:
        """The domains that are published."""
        return HTMLResponse(self.pages.domains(listed(self._settings, _page(request))))

    def domain(self, request: Request) -> Response:
        """A domain that is published."""
        try:
            found = shown(self._settings, domain_of(request.path_params["domain"]))
        except QueryError as error:
            if error.status is Status.USAGE:
                raise HTTPException(404) from error
            raise
        if not found:
            raise HTTPException(404)
        return HTMLResponse(self.pages.domain(found))

    def sending(self, _: Request) -> Response:
        """What the daemon has cached."""
        return HTMLResponse(self.pages.sending(held(self._settings)))

    async def do(self, request: Request) -> Response:
        """The page before a change, and the change."""
        name, target = request.path_params["button"], request.path_params["target"]
        if name not in BUTTONS:
            raise HTTPException(404)
        button, user, form = BUTTONS[name], request.scope["user"], request.scope["form"]
        wrong = ""
        if request.method == "POST":
            try:
                command, done = await self._hands.press(name, target, form, user)
            except (FieldError, QueryError) as error:
                wrong = str(error)
            else:
                page = await asyncio.to_thread(self.pages.done, button, target, str(command), done)
                return HTMLResponse(page, 200 if done.status in (Status.OK, Status.WARNING) else 409)
        token = self.guard.form_token(user, request.scope["path"])
        page = self.pages.question(button, target, token, given=form, wrong=wrong)
        return HTMLResponse(page, 400 if wrong else 200)

    def missing(self, _: Request, error: Exception) -> Response:
        """A page that is not there."""
        status = error.status_code if isinstance(error, HTTPException) else 404
        detail = error.detail if isinstance(error, HTTPException) and error.detail.endswith(".") else ""
        return HTMLResponse(self.pages.trouble("There is no such page", detail or "It may be gone."), status)

    def unavailable(self, _: Request, error: Exception) -> Response:
        """A page whose facts cannot be read."""
        return HTMLResponse(
            self.pages.trouble("Nothing can be shown here", str(error), getattr(error, "hint", "")), 503
        )

    @contextmanager
    def _reports(self) -> Iterator[Store]:
        with Store(Path(self._settings.reports.path)) as store:
            store.open_to_read()
            with store.snapshot():
                yield store


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _days(request: Request) -> int:
    days = request.query_params.get("days", str(DAYS))
    if days not in map(str, WINDOWS):
        raise HTTPException(404)
    return int(days)


def _page(request: Request) -> int:
    page = request.query_params.get("page", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,4}", page):
        raise HTTPException(404)
    return int(page)


def _key(request: Request) -> str:
    key: str = request.path_params["key"]
    if not _KEY.fullmatch(key):
        raise HTTPException(404)
    return key


def _file(content: bytes, name: str, kind: str) -> Response:
    """A file to save. `name` is one of ours."""
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
