"""A world without extras delivers mail, by the Postfix that its name says, and leaves that as it was."""

import subprocess

import pytest

from tests.e2e.conftest import of_the_parameter
from tests.e2e.vocabulary import SENDER, VERIFIED, outcome
from tests.world.mail import World
from tests.world.postfix import INSTALLATIONS, Installation
from tests.world.smtp import Message

DEBIAN = {"bookworm": (3, 7), "trixie": (3, 10), "forky": (3, 11)}


def test_the_version_that_runs(world: World) -> None:
    version = world.postfix.version
    name = world.postfix.installation.name
    assert version[:2] == DEBIAN.get(name, version[:2])
    started = world.postfix.wait_for_line("daemon started -- version ")
    assert started.split(" version ")[1].split(",")[0] == ".".join(map(str, version))


def test_mail_is_delivered(world: World) -> None:
    server = world.add("usual.test", "good", None)
    assert outcome(world.postfix.deliver("user@usual.test")) == VERIFIED._replace(tls="Trusted")
    assert server.messages == [Message(SENDER, ("user@usual.test",), True, None)]


@pytest.fixture(scope="module", params=INSTALLATIONS[1:], ids=lambda installation: installation.name)
def root(request: pytest.FixtureRequest) -> Installation:
    return of_the_parameter(request)


def test_a_root_is_read_only(root: Installation) -> None:
    with root.mounted():
        touched = subprocess.run(root.command("touch", "/etc/postfix/main.cf"), capture_output=True, text=True)
    assert touched.stderr == "touch: cannot touch '/etc/postfix/main.cf': Read-only file system\n"
