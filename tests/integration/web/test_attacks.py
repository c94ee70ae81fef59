"""Who does not belong gets nothing and changes nothing."""

import asyncio
import contextlib
import resource
import socket
import time
from pathlib import Path

import httpx
import pytest

from postfix_mtasts.web.forms import FIELD
from postfix_mtasts.web.guard import MAX_FIELDS, MAX_FORM
from postfix_mtasts.web.serve import CONNECTIONS, REQUEST_WITHIN
from tests.integration.web.conftest import changes
from tests.world.dashboard import TOKEN, Dashboard, token_of

PATHS = (
    "/", "/sources", "/sources.json", "/results", "/reports", "/quarantine/1", "/quarantine/1.eml", "/domains",
    "/sending", "/do/add/", "/do/hide/google.com", "/script.js", "/none",
)  # fmt: skip
ADD = "/do/add/"


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_there_is_no_page(dashboard: Dashboard, path: str) -> None:
    for token in ("", "x", TOKEN[:-1], f"{TOKEN}0"):
        answer = dashboard.client(token=token).get(path)
        assert (answer.status_code, answer.headers["www-authenticate"][:5]) == (401, "Basic")
        assert answer.text == "401: This page needs the token in web.token_file, as the password of any user.\n"


@pytest.mark.parametrize("path", PATHS)
def test_another_name_gets_no_page(client: httpx.Client, path: str) -> None:
    answer = client.get(path, headers={"host": "evil.example"})
    assert (answer.status_code, answer.text) == (421, "421: This name is not one of web.hosts.\n")


@pytest.mark.parametrize("path", [*PATHS, "/sources?days=3"])
def test_every_answer_forbids_what_no_page_does(client: httpx.Client, path: str) -> None:
    for answer in (client.get(path), client.get(path, headers={"host": "evil.example"})):
        assert "set-cookie" not in answer.headers
        assert "server" not in answer.headers
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy.pop("style-src").startswith("'sha256-")
        assert policy == {
            "default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "script-src": "'self'",
            "form-action": "'self'", "frame-ancestors": "'none'",
        }  # fmt: skip
        expected = {
            "x-frame-options": "DENY", "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
            "cache-control": "no-store",
        }  # fmt: skip
        assert {name: answer.headers[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("headers", "fields", "status"),
    [
        pytest.param({}, {}, 403, id="no-origin"),
        pytest.param({"origin": "null"}, {}, 403, id="null"),
        pytest.param({"origin": "http://evil.example"}, {}, 403, id="cross-site"),
        pytest.param({"origin": "OURS", "sec-fetch-site": "cross-site"}, {}, 403, id="fetch-metadata"),
        pytest.param({"origin": "OURS"}, {FIELD: ""}, 403, id="no-token"),
        pytest.param({"origin": "OURS"}, {FIELD: "1.00"}, 403, id="forged-token"),
        pytest.param({"origin": "OURS"}, {FIELD: "OF-ANOTHER-PAGE"}, 403, id="token-of-another-page"),
        pytest.param({"origin": "OURS"}, {"mx": "x" * MAX_FORM}, 413, id="too-long"),
        pytest.param({"origin": "OURS"}, {str(n): "" for n in range(MAX_FIELDS)}, 413, id="too-many"),
        pytest.param({"origin": "OURS", "host": "evil.example"}, {}, 421, id="rebound"),
        pytest.param({"origin": "OURS", "authorization": "Basic eDp5"}, {}, 401, id="wrong-password"),
    ],
)
def test_a_form_that_is_not_ours_changes_nothing(
    dashboard: Dashboard, client: httpx.Client, headers: dict[str, str], fields: dict[str, str], status: int
) -> None:
    form = {"domain": "example.com", "mx": "mx.example.com", FIELD: token_of(client.get(ADD).text), **fields}
    if fields.get(FIELD) == "OF-ANOTHER-PAGE":
        form[FIELD] = token_of(client.get("/do/remove/example.com").text)
    asked = client.build_request("POST", ADD, data=form, headers={**headers, "authorization": "Basic eDp5"})
    asked.headers = httpx.Headers({**asked.headers, **headers})
    if headers.get("origin") == "OURS":
        asked.headers["origin"] = dashboard.url
    known = "authorization" not in headers
    answer = client.send(asked) if known else httpx.Client(trust_env=False).send(asked)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert changes(dashboard.folder) == []
    assert not [line for line in dashboard.log() if "command=" in line]


@pytest.mark.parametrize("path", ["/", "/domains", "/sending", "/reports"])
def test_a_page_is_not_posted_to(dashboard: Dashboard, client: httpx.Client, path: str) -> None:
    assert client.post(path, headers={"origin": dashboard.url}).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/script.js/../../app.py", "/script.js%00",
        "/reports/..%2f..%2fetc%2fpasswd", "/reports/../../reports.sqlite", "/reports/%2Fetc%2Fpasswd.eml",
        "/reports/..%2f..%2f..%2fetc%2fpasswd.eml", "/reports/0123.json", "/domains/..%2f..%2fetc", "/domains/%00",
        "/domains/%0d%0aSet-Cookie:x", "/do/../domains", "/do/nothing/example.com", "/static/style.css", "/templates/",
        "/sources?days=0", "/sources?days=14'", "/sources?days=99999999999999999999", "/reports?page=0",
        "/reports?page=-1", "/reports?page=999999", "/domains?page=1%00", "/reports?page=%D9%A1",
    ],
)  # fmt: skip
def test_no_path_leads_elsewhere(dashboard: Dashboard, path: str) -> None:
    # A client would shorten it.
    with socket.create_connection(("127.0.0.1", dashboard.port)) as connection:
        credentials = httpx.BasicAuth("a", TOKEN)._auth_header
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {credentials}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 404 "), answer[:200]
    assert "root:" not in answer
    assert "Set-Cookie" not in answer.partition("\r\n\r\n")[0]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods(client: httpx.Client, method: str) -> None:
    assert client.request(method, "/domains").status_code == 405


def test_what_is_no_http_is_refused(dashboard: Dashboard) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"x" * 200_000):
        with socket.create_connection(("127.0.0.1", dashboard.port)) as connection:
            try:
                connection.sendall(sent + b"\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            except ConnectionError:  # It may be closed before all was read.
                continue
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 421 ")), answer[:100]


def test_slow_clients_are_put_out_and_keep_nobody_out_for_long(dashboard: Dashboard) -> None:
    slow = [socket.create_connection(("127.0.0.1", dashboard.port)) for _ in range(CONNECTIONS + 20)]
    for one in slow:
        one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    begun = time.monotonic()
    for one in slow:
        one.settimeout(3 * REQUEST_WITHIN)
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(1) == b""
        one.close()
    assert time.monotonic() - begun >= REQUEST_WITHIN / 2  # They were put out for being slow, and not at once.
    with dashboard.client() as client:
        assert client.get("/do/add/").status_code == 200


def test_ten_thousand_requests_at_once_are_answered_or_told_to_come_again(dashboard: Dashboard) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    credentials = httpx.BasicAuth("a", TOKEN)._auth_header
    request = f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: {credentials}\r\nConnection: close\r\n\r\n".encode()
    statuses: dict[bytes, int] = {}

    async def ask(places: asyncio.Semaphore) -> None:
        async with places:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", dashboard.port)
                writer.write(request)
                status = (await reader.readline())[9:12]
                writer.close()
            except ConnectionError:
                status = b"cut"
            statuses[status] = statuses.get(status, 0) + 1

    async def ask_all() -> None:
        places = asyncio.Semaphore(1000)  # Connections; more descriptors than that are not always there.
        await asyncio.gather(*(ask(places) for _ in range(10_000)))

    asyncio.run(ask_all())
    assert sum(statuses.values()) == 10_000
    assert set(statuses) <= {b"200", b"503", b"cut"}
    memory = int(Path(f"/proc/{dashboard.pid}/status").read_text().split("VmHWM:")[1].split()[0])
    assert memory < 200 * 1024  # KiB at its peak.
    with dashboard.client() as client:
        assert client.get("/do/add/").status_code == 200
