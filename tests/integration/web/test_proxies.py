"""What docs/web.md has for Caddy and nginx lets in whom the proxy knows, under his name, and nobody else."""

import http.server
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.integration.publish.conftest import servers as servers  # A fixture.
from tests.integration.web.conftest import tables
from tests.world.dashboard import Dashboard, token_of
from tests.world.postfix import Installation
from tests.world.servers import eventually, running

DOCUMENT = Path(__file__).parents[3] / "docs/web.md"
NAME = "mta-sts.example.com"
PORT = 8480
URL = f"http://127.0.0.1:{PORT}"
SOCKET = "/run/postfix-mtasts-web/socket"
NGINX = """daemon off; user root; pid FOLDER/nginx.pid; worker_processes 1; error_log stderr; events {}
http { access_log off; client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
fastcgi_temp_path FOLDER/fastcgi; uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
server { listen 127.0.0.1:PORT;
BLOCK
} }
"""


def block(first: str) -> str:
    """What stands in the document from this line on, without its indentation."""
    found = re.search(rf"^    {re.escape(first)}\n(?:    .*\n)+", DOCUMENT.read_text(), re.MULTILINE)
    assert found
    return re.sub(r"^    ", "", found[0], flags=re.MULTILINE)


@contextmanager
def dashboard(folder: Path) -> Iterator[tuple[Dashboard, Path]]:
    path = folder / "dashboard"
    with Dashboard(folder, tables(folder), socket_path=path, hosts=[NAME], user_header="X-Remote-User") as started:
        yield started, path


def asks(**headers: str) -> httpx.Client:
    """A browser, in which somebody tries to be root."""
    host = f"{NAME}:{PORT}"
    sent = {"host": host, "origin": f"http://{host}", "x-remote-user": "root", **headers}
    return httpx.Client(base_url=URL, headers=sent, trust_env=False, timeout=60)


def press(client: httpx.Client) -> int:
    """Check a domain that is not published."""
    token = token_of(client.get("/do/check/example.com").text)
    return client.post("/do/check/example.com", data={"token": token}).status_code


def changed(started: Dashboard) -> list[str]:
    return [line for line in started.log() if "command=" in line]


def wait_for(log: Path) -> None:
    def answers() -> bytes:
        try:
            return httpx.get(URL, trust_env=False).content
        except httpx.TransportError as error:
            raise OSError from error

    eventually(answers, log)


def test_caddy(servers: Installation, tmp_path: Path) -> None:
    hashed = subprocess.run(
        servers.command("caddy", "hash-password", "--plaintext", "secret"), capture_output=True, text=True, check=True
    ).stdout.strip()
    with dashboard(tmp_path) as (started, path):
        text = block(f"{NAME} {{").replace(f"{NAME} {{", f"http://{NAME}:{PORT} {{", 1)
        text = text.replace("$2a$14$...", hashed).replace(SOCKET, str(path)).replace("basic_auth", "basicauth")
        (tmp_path / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{text}")
        command = servers.command("caddy", "run", "--adapter", "caddyfile", "--config", f"{tmp_path}/Caddyfile")
        with running(tmp_path / "caddy.log", *command):
            wait_for(tmp_path / "caddy.log")
            with asks() as nobody, asks() as anna:
                assert nobody.get("/domains").status_code == 401
                anna.auth = httpx.BasicAuth("anna", "secret")
                assert anna.get("/domains").status_code == 200
                assert press(anna) == 409
        assert changed(started) == ["INFO: user=anna, command=postfix-mtasts-publish check example.com: error"]


class Service(http.server.BaseHTTPRequestHandler):
    """In place of oauth2-proxy: who has the session is known."""

    def do_GET(self) -> None:
        known = self.headers.get("cookie") == "session=bert"
        self.send_response(202 if known else 401)
        if known:
            self.send_header("X-Auth-Request-User", "bert")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - that is its name
        pass


@pytest.fixture
def service(namespace: None) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 4180), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_nginx(servers: Installation, service: None, tmp_path: Path) -> None:
    with dashboard(tmp_path) as (started, path):
        text = (block("location / {")).replace(SOCKET, str(path))
        settings = NGINX.replace("FOLDER", str(tmp_path)).replace("PORT", str(PORT)).replace("BLOCK", text)
        (tmp_path / "nginx.conf").write_text(settings)
        command = servers.command("nginx", "-e", "stderr", "-c", f"{tmp_path}/nginx.conf")
        with running(tmp_path / "nginx.log", *command):
            wait_for(tmp_path / "nginx.log")
            with asks() as nobody, asks(cookie="session=bert") as bert:
                assert nobody.get("/domains").status_code == 401
                assert bert.get("/domains").status_code == 200
                assert press(bert) == 409
        assert changed(started) == ["INFO: user=bert, command=postfix-mtasts-publish check example.com: error"]
