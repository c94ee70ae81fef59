"""Who is let in: the rule over the method and the headers of a request."""

import base64
from collections.abc import Sequence

import pytest

from postfix_mtasts.config import UnixEndpoint, Web
from postfix_mtasts.web.guard import MAX_USER, Asked, Guard, Message, Receive, Refusal, Scope, Send, refusal, who

SETTINGS = Web(listen=UnixEndpoint("/run/web"), hosts=("localhost", "127.0.0.1", "::1", "mta-sts.example"))
TOKEN = b"0123456789abcdef0123"
OTHER_NAME = Refusal(421, "This name is not one of web.hosts.")
NO_TOKEN = Refusal(401, "This page needs the token in web.token_file, as the password of any user.", challenge=True)
NOBODY = Refusal(403, "The proxy in front does not say who asks, in X-Remote-User.")
FOREIGN = Refusal(403, "This form was not sent from a page of the dashboard.")

Headers = Sequence[tuple[str, str]]


def asked(method: str, headers: Headers) -> Asked:
    return Asked(method, [(name.lower().encode(), value.encode("latin-1")) for name, value in headers])


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8463", "LOCALHOST:1", "127.0.0.1:8463", "[::1]", "[::1]:8463", "mta-sts.example"],
)
def test_own_names(host: str) -> None:
    assert refusal(asked("GET", [("Host", host)]), SETTINGS, b"") is None


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param([("Host", "")], id="empty"),
        pytest.param([("Host", "localhost"), ("Host", "localhost")], id="two"),
        pytest.param([("Host", "evil.example")], id="rebound"),
        pytest.param([("Host", "localhost.evil.example")], id="longer"),
        pytest.param([("Host", "evil.localhost")], id="below"),
        pytest.param([("Host", "localhost:99999")], id="port"),
        pytest.param([("Host", "localhost:x")], id="port-name"),
        pytest.param([("Host", "user@localhost")], id="user"),
        pytest.param([("Host", "localhost/path")], id="path"),
        pytest.param([("Host", "localhost?query")], id="query"),
        pytest.param([("Host", "[::1")], id="bracket"),
        pytest.param([("Host", "localhost, evil.example")], id="comma"),
    ],
)
def test_other_names(headers: Headers) -> None:
    assert refusal(asked("GET", headers), SETTINGS, b"") == OTHER_NAME


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get"])
def test_other_methods(method: str) -> None:
    found = refusal(asked(method, [("Host", "localhost")]), SETTINGS, b"")
    assert found == Refusal(405, "Pages are read with GET and changed with POST.")


def basic(text: bytes) -> str:
    return f"Basic {base64.b64encode(text).decode()}"


@pytest.mark.parametrize(
    "value", [basic(b"anybody:" + TOKEN), basic(b":" + TOKEN), f"basic  {basic(b':' + TOKEN).partition(' ')[2]}"]
)
def test_the_token_lets_in(value: str) -> None:
    assert refusal(asked("GET", [("Host", "localhost"), ("Authorization", value)]), SETTINGS, TOKEN) is None


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param([("Authorization", basic(b"user:"))], id="empty"),
        pytest.param([("Authorization", basic(b"user:" + TOKEN[:-1]))], id="shorter"),
        pytest.param([("Authorization", basic(b"user:" + TOKEN + b"0"))], id="longer"),
        pytest.param([("Authorization", basic(TOKEN))], id="no-user"),
        pytest.param([("Authorization", basic(TOKEN + b":"))], id="as-user"),
        pytest.param([("Authorization", f"Bearer {TOKEN.decode()}")], id="bearer"),
        pytest.param([("Authorization", "Basic \xe9\xe9\xe9")], id="latin"),
        pytest.param([("Authorization", "Basic ====")], id="base64"),
        pytest.param([("Authorization", basic(b":" + TOKEN)), ("Authorization", basic(b":x"))], id="two"),
        pytest.param([("Cookie", f"token={TOKEN.decode()}")], id="cookie"),
    ],
)
def test_no_token(headers: Headers) -> None:
    assert refusal(asked("GET", [("Host", "localhost"), *headers]), SETTINGS, TOKEN) == NO_TOKEN


BEHIND = Web(listen=UnixEndpoint("/run/web"), user_header="X-Remote-User")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([("x-remote-user", "anna@example.com")], None, id="one"),
        pytest.param([("X-Remote-User", "x" * MAX_USER)], None, id="long"),
        pytest.param([], NOBODY, id="none"),
        pytest.param([("X-Remote-User", "")], NOBODY, id="empty"),
        pytest.param([("X-Remote-User", " ")], NOBODY, id="blank"),
        pytest.param([("X-Remote-User", "x" * (MAX_USER + 1))], NOBODY, id="too-long"),
        pytest.param([("X-Remote-User", "a\x1b[31m")], NOBODY, id="control"),
        pytest.param([("X-Remote-User", "root"), ("X-Remote-User", "anna")], NOBODY, id="forged-beside"),
        pytest.param([("X_Remote_User", "root")], NOBODY, id="underscores"),
    ],
)
def test_the_name_that_the_proxy_gives(headers: Headers, expected: Refusal | None) -> None:
    assert refusal(asked("GET", [("Host", "localhost"), *headers]), BEHIND, b"") == expected


def test_a_name_in_any_letters() -> None:
    request = Asked("GET", [(b"host", b"localhost"), (b"x-remote-user", "Änne Łukasz".encode())])
    assert refusal(request, BEHIND, b"") is None
    assert who(request, None, BEHIND) == "Änne Łukasz"


LED = [("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]
ANOTHER = Refusal(403, "A page of another site has asked for this, and may only lead here by a link.")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([("Sec-Fetch-Site", "none"), *LED], None, id="address-bar"),
        pytest.param([("Sec-Fetch-Site", "cross-site"), *LED], None, id="link"),
        pytest.param([("Sec-Fetch-Site", "same-site"), *LED], None, id="link-of-another-port"),
        pytest.param([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Dest", "script")], None, id="script-of-ours"),
        pytest.param([("Sec-Fetch-Site", "cross-site")], ANOTHER, id="bare"),
        pytest.param(
            [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")],
            ANOTHER, id="picture",
        ),
        pytest.param(
            [("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Dest", "empty")],
            ANOTHER, id="fetch-of-another-port",
        ),
        pytest.param(
            [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")],
            ANOTHER, id="frame",
        ),
    ],
)  # fmt: skip
def test_other_sites_may_only_lead_here(method: str, headers: Headers, expected: Refusal | None) -> None:
    assert refusal(asked(method, [("Host", "localhost:8463"), *headers]), SETTINGS, b"") == expected


ORIGIN = ("Origin", "http://localhost:8463")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([ORIGIN], None, id="old-browser"),
        pytest.param([ORIGIN, ("Sec-Fetch-Site", "same-origin")], None, id="browser"),
        pytest.param([("Origin", "https://localhost:8463"), ("Sec-Fetch-Site", "same-origin")], None, id="proxy-https"),
        pytest.param([], FOREIGN, id="no-origin"),
        pytest.param([("Origin", "null")], FOREIGN, id="null"),
        pytest.param([("Origin", "http://evil.example")], FOREIGN, id="other-site"),
        pytest.param([("Origin", "http://localhost")], FOREIGN, id="other-port"),
        pytest.param([("Origin", "http://localhost:8463.evil.example")], FOREIGN, id="longer"),
        pytest.param([("Origin", "ftp://localhost:8463")], FOREIGN, id="scheme"),
        pytest.param([ORIGIN, ORIGIN], FOREIGN, id="two"),
        pytest.param([ORIGIN, ("Sec-Fetch-Site", "cross-site")], FOREIGN, id="cross-site"),
        pytest.param([ORIGIN, ("Sec-Fetch-Site", "same-site")], FOREIGN, id="same-site"),
        pytest.param([("Referer", "http://localhost:8463/")], FOREIGN, id="referer-alone"),
    ],
)
def test_forms_come_from_our_pages(headers: Headers, expected: Refusal | None) -> None:
    assert refusal(asked("POST", [("Host", "localhost:8463"), *headers]), SETTINGS, b"") == expected


def test_who_asks() -> None:
    request = asked("GET", [("X-Remote-User", "anna")])
    assert who(request, ("127.0.0.1", 1234), BEHIND) == "anna"
    assert who(request, ("127.0.0.1", 1234), SETTINGS) == "web, 127.0.0.1"
    assert who(request, ("root", 0), SETTINGS) == "web, root"


async def test_a_form_is_read_before_it_is_refused() -> None:
    """Or the connection is closed with octets that nobody has read, and the browser shows no reason."""
    form = [{"type": "http.request", "body": b"x" * 10, "more_body": more} for more in (True, False)]
    sent: list[tuple[object, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it was let in")

    async def receive() -> Message:
        return form.pop(0)

    async def send(message: Message) -> None:
        sent.append((message.get("status"), len(form)))

    scope = {"type": "http", "method": "POST", "path": "/", "client": None, "headers": [(b"host", b"evil.example")]}
    await Guard(app, SETTINGS, b"", "default-src 'none'")(scope, receive, send)
    assert sent == [(421, 0), (None, 0)]
