"""`make` on a machine whose mail is somebody's: another mail server, or a configured Postfix, is found as before.

The machine is a root of this machine's Debian with a clone of ours, and no network. Of `make test`, it runs what the
target installs, the linters, and the tests of the package's files and of each Postfix at hand: all of it would run
itself.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.conftest import mounted
from tests.world.package import PROJECT
from tests.world.postfix import ROOTS
from tests.world.root import Root, changeable, missing
from tests.world.theirs import EXIM, POSTFIX, MailServer, put, state

pytestmark = pytest.mark.timeout(600)  # apt takes its time, and so does mypy on a busy machine.

MACHINE = "machine"
SUBSET = ("tests/unit/test_debian.py", "tests/e2e/test_installation.py")


@pytest.fixture
def machine() -> Iterator[Root]:
    """A machine without mail; with our clone and its Python, at their places."""
    if why := missing(MACHINE):
        pytest.skip(why)
    with changeable(MACHINE) as root, ExitStack() as stack:
        python = Path(sys.base_prefix)
        if python == Path("/usr"):
            here = f"{sys.version_info.major}.{sys.version_info.minor}"
            if not (root.path / f"usr/bin/python{here}").exists():
                pytest.skip(f"needs a root {MACHINE} with Python {here}: its Debian has another one")
        else:
            at = root.path / python.relative_to("/")
            at.mkdir(parents=True)
            stack.enter_context(mounted("--bind", "-o", "ro", python, at))
        at = root.path / ROOTS.relative_to("/")
        at.mkdir(parents=True)
        stack.enter_context(mounted("--rbind", ROOTS, at))
        stack.enter_context(clone_in(root))
        (root.path / "etc/resolv.conf").write_text("")
        yield root


def clone_in(root: Root) -> ExitStack:
    """Our clone at its own place, with the environments that it has; changes are gone with the block."""
    place = root.path / PROJECT.relative_to("/")
    layer = root.path / "mnt"
    for folder in (place, layer):
        folder.mkdir(parents=True, exist_ok=True)
    stack = ExitStack()
    stack.enter_context(mounted("-t", "tmpfs", "tmpfs", layer))
    for part in ("changes", "work"):
        (layer / part).mkdir()
    options = f"lowerdir={PROJECT},upperdir={layer / 'changes'},workdir={layer / 'work'}"
    stack.enter_context(mounted("-t", "overlay", "-o", options, "overlay", place))
    for made in (".run", ".test"):  # There is no network to make it anew.
        (place / ".venv" / made).touch()
    return stack


def make(root: Root, *words: str) -> str:
    """`make` in the clone, as root, which gets the nested namespaces for itself."""
    return root.run("make", "--no-print-directory", *words, folder=str(PROJECT), environment=ENVIRONMENT)


ENVIRONMENT = {"POSTFIX_MTASTS_ROOTS": str(ROOTS), "GIT_CONFIG_COUNT": "0"}


@pytest.mark.parametrize("theirs", [EXIM, POSTFIX], ids=lambda server: str(server.package))
def test_the_mail_server_is_as_before(machine: Root, theirs: MailServer) -> None:
    put(theirs, machine)
    before = state(machine)
    assert len(before.files) > 20

    for what in ("build", "demo"):
        said = machine.run(".ci/need", what, folder=str(PROJECT))
        assert ("another mail server is, or was" in said) == (what == "demo" and theirs is EXIM), said
    assert "libsystemd-dev" in (machine.path / PROJECT.relative_to("/") / ".ci/installed").read_text().split()
    assert state(machine) == before

    tested = make(machine, "test", f"TESTS={' '.join(SUBSET)}")
    assert re.search(r"^=+ \d+ passed", tested, flags=re.MULTILINE), tested
    assert state(machine) == before

    shown = make(machine, "demo")
    assert re.search(r"^    Verified TLS connection established to mx\.good\.test", shown, flags=re.MULTILINE), shown
    assert "status=deferred (Server certificate not verified)" in shown
    assert state(machine) == before

    run_and_clean(machine)
    assert state(machine) == before


def run_and_clean(machine: Root) -> None:
    """`make run` keeps what was edited, and `make clean` names it."""
    config = machine.path / "root/.local/state/postfix-mtasts/postfix-mtasts.toml"
    assert ready(machine) == "smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:postfix"
    edited = f'{config.read_text()}[dns]\nnameservers = ["127.0.0.1"]\n'.replace(
        "[server]\n", '[server]\nlisten = ["inet:127.0.0.1:8642"]\n'
    )
    config.write_text(edited)
    assert ready(machine) == "smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8642:postfix"
    assert config.read_text() == edited
    left = make(machine, "clean")
    for place in ("/root/.local/state/postfix-mtasts", str(ROOTS)):
        assert f"in {place}; to remove it: rm -r {place}\n" in left
    assert config.read_text() == edited
    ignored = machine.run("git", "-c", "safe.directory=*", "status", "--short", "--ignored", folder=str(PROJECT))
    assert [line for line in ignored.splitlines() if line.startswith("!!") and ".ci/installed" not in line] == []


def test_a_postfix_that_was_removed_stays_removed(machine: Root) -> None:
    """Its configuration is there, for the day on which it is installed again."""
    put(POSTFIX, machine)
    machine.run("apt-get", "remove", "--yes", "postfix")
    before = state(machine)
    assert before.files["etc/postfix/main.cf"]
    assert "another mail server is, or was" in machine.run(".ci/need", "demo", folder=str(PROJECT))
    assert state(machine) == before


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("deb", "missing packages; as root: apt install dpkg-dev\n"),
        ("demo", "make demo: needs root: run `sudo make demo`\n"),
    ],
)
def test_without_root_it_is_named(machine: Root, target: str, said: str) -> None:
    (machine.path / "root").chmod(0o755)  # Its Python may be there.
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = machine.ask(*as_nobody, "make", target, folder=str(PROJECT), environment=ENVIRONMENT)
    assert done.returncode == 2
    assert said in done.stdout, done.stdout


def test_a_machine_without_mail_gets_a_postfix_that_does_nothing(machine: Root) -> None:
    assert "installing for this target: " in machine.run(".ci/need", "demo", folder=str(PROJECT))
    assert [line.split()[1] for line in state(machine).packages] == ["postfix"]
    assert not (machine.path / "etc/postfix/main.cf").exists()
    assert machine.run(".ci/need", "demo", folder=str(PROJECT)) == ""


def test_what_a_package_starts_there_ends_with_it() -> None:
    """Or a Postfix in it would get a share of the connections to port 25 in later tests."""
    if why := missing(MACHINE):
        pytest.skip(why)
    with changeable(MACHINE) as root:
        started = subprocess.Popen(["chroot", root.path, "sleep", "infinity"])
        while (Path("/proc") / str(started.pid) / "root").readlink() != root.path:
            pass
    assert started.wait(timeout=30) == -signal.SIGKILL


def ready(root: Root) -> str:
    """What `make run` prints for main.cf, until Ctrl-C ends it."""
    command = ["chroot", str(root.path), "env", "--chdir", str(PROJECT), "make", "--no-print-directory", "run"]
    with subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], "HOME": "/root", **ENVIRONMENT},
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout
            lines = []
            while line := process.stdout.readline():
                lines.append(line)
                if "ready; for main.cf: " in line:
                    return str(line.partition("ready; for main.cf: ")[2].strip())
            raise AssertionError(lines)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=30)
