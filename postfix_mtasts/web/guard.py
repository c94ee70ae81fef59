"""Lets in who belongs, and nothing else: each request passes here before any page is looked for.

`refusal` is the rule; `Guard` is an ASGI application around another one, which performs it, reads forms within bounds,
and adds the headers that tell browsers what no page of ours does.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from postfix_mtasts.config import Web as Settings
from postfix_mtasts.web import forms

MAX_FORM = 8192  # Octets. The longest field is a reason.
MAX_FIELDS = 20  # Of a form.
MAX_USER = 100  # Characters of a user's name.
FORM_WITHIN = 10.0  # Seconds for all of a form to come.
AT_ONCE = 4  # Pages that are made, and forms that are worked on; others wait. Each may read the database of reports.
WAIT = 30.0  # Seconds for a place.

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than the page: a status, the reason, and perhaps how to ask for a name and password."""

    status: int
    reason: str
    challenge: bool = False


class Asked:
    """A request without its body: its method and its headers, whose names are in lower case."""

    def __init__(self, method: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.method = method
        self._headers = headers

    def header(self, name: str) -> str | None:
        """The value of a header; None unless there is exactly one."""
        found = [value for key, value in self._headers if key == name.lower().encode()]
        if len(found) != 1:
            return None
        try:
            return found[0].decode()  # Names of users may have any letters.
        except UnicodeDecodeError:
            return found[0].decode("latin-1")


def refusal(asked: Asked, settings: Settings, token: bytes) -> Refusal | None:
    """Why a request is refused before its form is read; None if it is not."""
    host = asked.header("host")
    if host is None or _name(host) not in settings.hosts:
        return Refusal(421, "This name is not one of web.hosts.")
    if asked.method not in ("GET", "HEAD", "POST"):
        return Refusal(405, "Pages are read with GET and changed with POST.")
    if asked.method != "POST" and _is_for_another_site(asked):
        return Refusal(403, "A page of another site has asked for this, and may only lead here by a link.")
    if token and not _has_token(asked.header("authorization"), token):
        return Refusal(401, "This page needs the token in web.token_file, as the password of any user.", challenge=True)
    if settings.user_header and not _is_user(asked.header(settings.user_header)):
        return Refusal(403, f"The proxy in front does not say who asks, in {settings.user_header}.")
    if asked.method == "POST" and not _is_same_origin(asked, host):
        return Refusal(403, "This form was not sent from a page of the dashboard.")
    return None


def _name(host: str) -> str:
    """The name in a Host header, without its port; empty if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.netloc == host and "@" not in host else ""


def _has_token(authorization: str | None, token: bytes) -> bool:
    """Whether it is HTTP Basic with the token as the password (RFC 7617)."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        _, _, password = base64.b64decode(credentials.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(password, token)


def _is_for_another_site(asked: Asked) -> bool:
    """Whether a browser says that a page of another site has this as a part of its own, such as a picture.

    That page would not see it, but how long it takes, and could have the dashboard make pages without end.
    """
    if asked.header("sec-fetch-site") not in ("cross-site", "same-site"):
        return False
    return (asked.header("sec-fetch-mode"), asked.header("sec-fetch-dest")) != ("navigate", "document")


def _is_user(name: str | None) -> bool:
    return name is not None and 0 < len(name) <= MAX_USER and name.isprintable() and not name.isspace()


def _is_same_origin(asked: Asked, host: str) -> bool:
    """Whether a browser says that a form was sent from a page of ours."""
    origin = asked.header("origin")
    if origin is None or origin.partition("://")[2] != host or not origin.startswith(("http://", "https://")):
        return False
    return asked.header("sec-fetch-site") in (None, "same-origin")


def who(asked: Asked, client: tuple[str, int] | None, settings: Settings) -> str:
    """Who asks, for the history."""
    if settings.user_header:
        return asked.header(settings.user_header) or ""
    return f"web, {client[0] if client else 'unknown'}"


class Guard:
    """Passes requests on to an application, with `user` and `form` (a dict) in their scope.

    `policy` is the content security policy of all answers.
    """

    def __init__(self, app: App, settings: Settings, token: bytes, policy: str) -> None:
        self._app = app
        self._settings = settings
        self._token = token
        self._key = secrets.token_bytes(32)
        # What changes something may look at the Internet for a minute, and pages do not wait for that.
        self._places = {kind: asyncio.Semaphore(AT_ONCE) for kind in (True, False)}
        self._headers = [(name.encode(), value.encode()) for name, value in _headers(policy)]

    def form_token(self, user: str, path: str) -> str:
        """The token of a form on a page for a user."""
        return forms.token(self._key, user, path, time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        asked = Asked(scope["method"], scope["headers"])
        refused = refusal(asked, self._settings, self._token)
        if not refused:
            scope["user"] = who(asked, scope["client"], self._settings)
            refused = await self._read(scope, receive)
        elif scope["method"] == "POST":
            await _drain(receive)
        if refused:
            await self._refuse(refused, send)
            return
        places = self._places[scope["method"] == "POST"]
        try:
            async with asyncio.timeout(WAIT):
                await places.acquire()
        except TimeoutError:
            await self._refuse(Refusal(503, "Too many pages are asked for at once: try again later."), send)
            return
        try:
            await self._app(scope, receive, self._with_headers(send))
        finally:
            places.release()

    async def _read(self, scope: Scope, receive: Receive) -> Refusal | None:
        """Read the form of a POST, and see that a page of ours has it."""
        scope["form"] = {}
        if scope["method"] != "POST":
            return None
        try:
            async with asyncio.timeout(FORM_WITHIN):
                body = await _body(receive)
        except TimeoutError:
            return Refusal(408, f"The form did not come within {FORM_WITHIN:g} s.")
        try:
            fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
        except ValueError:
            fields = [("", ""), ("", "")]
        form = dict(fields)
        if len(body) > MAX_FORM or len(form) != len(fields):
            return Refusal(413, f"A form has at most {MAX_FORM} octets and {MAX_FIELDS} fields, each once.")
        if not forms.is_valid(form.get(forms.FIELD, ""), self._key, scope["user"], scope["path"], time.time()):
            return Refusal(403, "The page with this form is too old, or not of the dashboard: open it again.")
        scope["form"] = form
        return None

    async def _refuse(self, refused: Refusal, send: Send) -> None:
        body = f"{refused.status}: {refused.reason}\n".encode()
        headers = [*self._headers, (b"content-type", b"text/plain; charset=utf-8")]
        headers.append((b"content-length", str(len(body)).encode()))
        headers.append((b"connection", b"close"))  # The rest of a form is not read.
        if refused.challenge:
            headers.append((b"www-authenticate", b'Basic realm="postfix-mtasts", charset="UTF-8"'))
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers]}
            await send(message)

        return sending


async def _drain(receive: Receive) -> None:
    """Read a form that nobody wants: closed with octets that were not read, a connection would lose the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FORM_WITHIN):
            await _body(receive)


async def _body(receive: Receive) -> bytes:
    """The body of a request, or a little more than is allowed of it."""
    body = b""
    while len(body) <= MAX_FORM:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    return body


def _headers(policy: str) -> list[tuple[str, str]]:
    return [
        ("content-security-policy", f"{policy}; frame-ancestors 'none'"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),  # With no-referrer, forms would say that they come from nowhere.
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ]
