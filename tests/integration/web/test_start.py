"""Where the dashboard listens, for whom, and why it does not start."""

import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from postfix_mtasts import __version__
from postfix_mtasts.query.output import Status
from tests.integration.web.conftest import tables
from tests.world.daemon import toml
from tests.world.dashboard import COMMAND, TOKEN, token_of
from tests.world.systemd import Manager

NOBODY = pwd.getpwnam("nobody")
GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name


def run(*words: str | Path) -> tuple[int, str]:
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, timeout=20)
    assert done.stdout == ""
    return done.returncode, done.stderr


def config(folder: Path, **web: object) -> Path:
    file = folder / "web.toml"
    file.write_text(toml({**tables(folder), "web": web}))
    return file


def test_it_is_off_until_it_is_configured(tmp_path: Path) -> None:
    file = config(tmp_path)
    hint = 'set web.listen, such as "unix:/run/postfix-mtasts-web/socket"'
    assert run("--config", file) == (78, f"postfix-mtasts-web: error: {file}: the dashboard is off: {hint}\n")


def test_a_wrong_configuration(tmp_path: Path) -> None:
    file = config(tmp_path, listen="inet:127.0.0.1:8463")
    why = (
        'web.listen = "inet:127.0.0.1:8463": set token_file or user_header too, or anybody who reaches the port gets in'
    )
    assert run("--config", file) == (Status.CONFIG, f"postfix-mtasts-web: error: {file}: {why}\n")


def test_a_wrong_command_line() -> None:
    status, text = run("--port", "80")
    assert (status, text.splitlines()[1]) == (Status.USAGE, "hint: postfix-mtasts-web --help")


def test_the_version() -> None:
    done = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"postfix-mtasts-web {__version__}\n"


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, 0o600, "there is no such file"),
        (f"{TOKEN}\n", 0o604, "every user of this machine may read it or write to it; run: chmod o= {}"),
        ("short\n", 0o600, "must have one line of 20 to 1000 printable characters"),
        ("x" * 1001, 0o600, "must have one line of 20 to 1000 printable characters"),
        (f"{TOKEN}\n{TOKEN}\n", 0o600, "must have one line of 20 to 1000 printable characters"),
    ],
)
def test_wrong_token_files(tmp_path: Path, content: str | None, mode: int, why: str) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
        token.chmod(mode)
    status, text = run("--config", config(tmp_path, listen="inet:127.0.0.1:8463", token_file=str(token)))
    assert status == Status.UNAVAILABLE
    assert text.startswith(f'postfix-mtasts-web: error: web.token_file = "{token}": {why.format(token)}')


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
def test_root_does_not_write_into_the_folder_of_somebody_else(tmp_path: Path) -> None:
    ours = tables(tmp_path)
    folder = tmp_path / "published"
    folder.mkdir()
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    ours["publish"]["path"] = str(folder / "publish.sqlite")
    file = tmp_path / "web.toml"
    file.write_text(toml({**ours, "web": {"listen": f"unix:{tmp_path / 'socket'}", "group": ""}}))
    why = f"{folder} belongs to nobody: run it as that user, and not as root"
    assert run("--config", file) == (69, f"postfix-mtasts-web: error: {why}\n")
    assert list(folder.iterdir()) == []


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    status, text = run("--config", config(tmp_path, listen=f"unix:{path}", group="no-such-group"))
    assert (status, text) == (69, 'postfix-mtasts-web: error: web.group = "no-such-group": no such group\n')
    assert not path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
def test_a_unix_socket_is_for_its_group_and_says_who_asks(open_folder: Path) -> None:
    path = open_folder / "dashboard"
    file = config(open_folder, listen=f"unix:{path}", group=GROUP)
    with subprocess.Popen([COMMAND, "--config", file], stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(path)
            found = path.stat()
            assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, NOBODY.pw_gid)
            member = as_user(path, NOBODY.pw_uid, NOBODY.pw_gid)
            assert member == "200"
            assert as_user(path, NOBODY.pw_uid, 12345) == "PermissionError"
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
                token = token_of(client.get("/do/check/example.com").text)
                origin = {"origin": "http://localhost"}
                done = client.post("/do/check/example.com", data={"token": token}, headers=origin)
                assert done.status_code == 409  # It is not published.
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.stderr
        log = process.stderr.read().splitlines()
    assert log == [
        "INFO: user=web, root, command=postfix-mtasts-publish check example.com: error",
    ]
    assert not path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be without root's rights")
def test_who_may_not_ask_the_daemon_is_told_what_the_dashboard_needs(tmp_path: Path) -> None:
    path, file = tmp_path / "dashboard", config(tmp_path, listen=f"unix:{tmp_path / 'dashboard'}", group="")
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", str(COMMAND), "--config", str(file)]
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(tmp_path / "control"))
        control.listen()
        os.chown(tmp_path / "control", NOBODY.pw_uid, NOBODY.pw_gid)
        (tmp_path / "control").chmod(0o600)
        with subprocess.Popen(command) as process:
            try:
                wait_for(path)
                with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
                    texts = [client.get(page).text for page in ("/", "/sending")]
            finally:
                process.send_signal(signal.SIGTERM)
    for text in texts:
        assert "set that to a group of user root, and restart the daemon" in text


def test_systemd_is_told_when_it_answers_and_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = [str(COMMAND), "--config", str(config(tmp_path, listen=f"unix:{path}", group=""))]
    with (
        Manager(tmp_path) as manager,
        subprocess.Popen(command, env=os.environ | {"NOTIFY_SOCKET": str(manager.path)}) as process,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client,
    ):
        try:
            assert manager.next() == {"READY": "1"}
            assert client.get("/do/add/").status_code == 200  # At once, and not after some tries.
        finally:
            process.send_signal(signal.SIGTERM)
        assert manager.next() == {"STOPPING": "1"}
        assert manager.heard() == []


def test_systemd_is_not_told_that_it_answers_if_it_is_off_or_cannot(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager:
        environment = os.environ | {"NOTIFY_SOCKET": str(manager.path)}
        for settings, status in (({}, 78), ({"listen": f"unix:{tmp_path / 'gone' / 'socket'}", "group": ""}, 69)):
            file = config(tmp_path, **settings)
            done = subprocess.run([COMMAND, "--config", file], env=environment, capture_output=True)
            assert (done.returncode, manager.heard()) == (status, [])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter. Those above pytest's are for one user alone."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def as_user(path: Path, user: int, group: int) -> str:
    """What somebody gets: a status, or the name of an error."""
    script = (
        "import socket, sys\n"
        "try:\n    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "except OSError as error:\n    print(type(error).__name__)\n"
        "else:\n    s.sendall(b'GET /do/add/ HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')\n"
        "    print(s.recv(99)[9:12].decode())"
    )
    command = ["/usr/bin/python3", "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, user=user, group=group, extra_groups=[])
    assert done.stderr == ""
    return done.stdout.strip()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or stat.S_IMODE(path.stat().st_mode) != 0o660:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_its_libraries(tmp_path: Path) -> None:
    file = config(tmp_path, listen=f"unix:{tmp_path / 'socket'}")
    script = (
        "import sys; sys.modules['uvicorn'] = None; from postfix_mtasts.web.main import run;"
        f" sys.exit(run(['--config', {str(file)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    why = "it needs Starlette, uvicorn and Jinja (Debian: python3-starlette, python3-uvicorn, python3-jinja2)"
    assert (done.returncode, done.stderr) == (69, f"postfix-mtasts-web: error: {why}\n")
