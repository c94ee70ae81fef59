"""The paths of the dashboard, and what each shows or does."""

import asyncio
import datetime
import json
import re
from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from postfix_mtasts.config import Config
from postfix_mtasts.publish.arguments import domain_of
from postfix_mtasts.publish.store import StoreError as PublishError
from postfix_mtasts.query.output import JSON, QueryError, Status
from postfix_mtasts.reports.facts import Stored
from postfix_mtasts.reports.report import Reading
from postfix_mtasts.reports.show import document
from postfix_mtasts.reports.store import StoreError
from postfix_mtasts.reports.views import DAYS, WINDOWS
from postfix_mtasts.web import reported
from postfix_mtasts.web.buttons import BUTTONS, FieldError
from postfix_mtasts.web.guard import Guard
from postfix_mtasts.web.held import held
from postfix_mtasts.web.helper import Hands
from postfix_mtasts.web.overview import concerns
from postfix_mtasts.web.pages import WebPages
from postfix_mtasts.web.published import listed, shown

_KEY = re.compile(r"[0-9a-f]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,15}")


def application(settings: Config, token: bytes, hands: Hands) -> Guard:
    """The dashboard, as an ASGI application."""
    site = Site(settings, hands)
    starlette = Starlette(
        routes=[
            Route("/", site.overview),
            Route("/script.js", _script),
            Route("/sources", site.sources),
            Route("/sources.json", site.sources_json),
            Route("/results", site.results),
            Route("/reports", site.reports),
            Route("/reports/{key}.json", site.json),
            Route("/reports/{key}.eml", site.mail),
            Route("/reports/{key}", site.report),
            Route("/quarantine/{number}.eml", site.kept_mail),
            Route("/quarantine/{number}", site.kept),
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
            reported.MailError: site.unavailable,
            Exception: site.broken,
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
        """The view by source, or one source."""
        today, days, name = _now().date(), _days(request), request.query_params.get("source")
        if name is None:
            return HTMLResponse(self.pages.by_source(reported.sources(self._settings, today, days)))
        found = reported.source(self._settings, today, days, name)
        if not found:
            raise HTTPException(404, "No such source reported in these days.")
        return HTMLResponse(self.pages.by_source(found, opened=True))

    def sources_json(self, request: Request) -> Response:
        """The view by source as JSON."""
        days = _days(request)
        return _json(reported.as_printed(self._settings, _now().date(), days), f"sources-{days}.json")

    def results(self, request: Request) -> Response:
        """The view by result."""
        return HTMLResponse(self.pages.results(reported.results(self._settings, _now().date(), _days(request))))

    def reports(self, request: Request) -> Response:
        """The list of reports, and the quarantine."""
        page = _page(request)
        return HTMLResponse(self.pages.recent(reported.listed(self._settings, _now().date(), page), page))

    def report(self, request: Request) -> Response:
        """A report."""
        return HTMLResponse(self.pages.report(self._stored(request)))

    def json(self, request: Request) -> Response:
        """A report as JSON."""
        found = self._stored(request)
        name = f"{found.key}.json"
        return _json(document(Reading(name, found.report, found.dkim)), name)

    def mail(self, request: Request) -> Response:
        """The mail that a report came in."""
        found = self._stored(request)
        return self._mail(found.message, f"{found.key}.eml")

    def kept(self, request: Request) -> Response:
        """A mail in quarantine."""
        return HTMLResponse(self.pages.kept(self._kept(request)))

    def kept_mail(self, request: Request) -> Response:
        """A mail in quarantine, as it came."""
        message = self._kept(request).message
        return self._mail(message.name, f"quarantine-{message.id}.eml")

    def _stored(self, request: Request) -> Stored:
        key = request.path_params["key"]
        found = reported.report(self._settings, key) if _KEY.fullmatch(key) else None
        if not found:
            raise HTTPException(404)
        return found

    def _kept(self, request: Request) -> reported.Kept:
        number = request.path_params["number"]
        found = (
            reported.in_quarantine(self._settings, int(number), self._hands.mail) if _NUMBER.fullmatch(number) else None
        )
        if not found:
            raise HTTPException(404, "It is not in quarantine any more, or never was.")
        return found

    def _mail(self, name: str, shown_name: str) -> Response:
        try:
            return _file(self._hands.mail(name), shown_name, "application/octet-stream")
        except FileNotFoundError as error:
            raise HTTPException(404, "The mail is not kept any more: see reports.keep_mails.") from error

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

    def broken(self, _: Request, error: Exception) -> Response:
        """A page that a defect of ours, or a daemon of another version, has stopped. uvicorn logs where."""
        text = f"Internal error, {type(error).__name__}. The log has more; after an upgrade, restart the daemon too."
        return HTMLResponse(self.pages.trouble("This page cannot be made", text), 500)

    def unavailable(self, _: Request, error: Exception) -> Response:
        """A page whose facts cannot be read."""
        return HTMLResponse(
            self.pages.trouble("Nothing can be shown here", str(error), getattr(error, "hint", "")), 503
        )


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


def _json(value: JSON, name: str) -> Response:
    return _file(json.dumps(value, allow_nan=False).encode() + b"\n", name, "application/json")


def _file(content: bytes, name: str, kind: str) -> Response:
    """A file to save. `name` is one of ours."""
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
