"""Which style the daemon chooses by itself, beside the Postfix of this machine."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_mtasts.postfix.installation import NoPostfix, Postfix, local_postfix
from tests.integration.conftest import mounted
from tests.world.daemon import EVENT_LOOP, Config, Daemon
from tests.world.postfix import HERE, Installation

PLAIN = "plain: Postfix {} does not support the attributes of tlsrpt"
TLSRPT = "tlsrpt: Postfix {} supports its attributes, and checks MX names with them"


@pytest.fixture
def version() -> tuple[int, int]:
    if why := HERE.missing():
        pytest.skip(why)
    return HERE.version[:2]


class MainCf:
    """An /etc/postfix/main.cf of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, settings: str) -> None:
        file = self.folder / "main.cf"
        file.write_text(f"compatibility_level = 3.6\n{settings}")
        os.utime(file, (0, 0))  # Postfix waits until a file that is new has stayed the same for a second.

    def remove(self) -> None:
        (self.folder / "main.cf").unlink(missing_ok=True)


@pytest.fixture
def main_cf(tmp_path: Path) -> Iterator[MainCf]:
    """By a mount that only our namespace sees."""
    theirs = Path("/etc/postfix")
    shutil.copytree(theirs, tmp_path / "etc")
    with mounted("--bind", tmp_path / "etc", theirs):
        yield MainCf(tmp_path / "etc")


@pytest.mark.parametrize(
    ("settings", "level", "dns"),
    [
        ("", "", ""),
        ("smtp_tls_security_level = may\n", "may", ""),
        ("smtp_tls_security_level = dane\nsmtp_dns_support_level = dnssec\n", "dane", "dnssec"),
        ("mine = dane\nsmtp_tls_security_level = $mine\nsmtp_dns_support_level=${mine?dnssec}\n", "dane", "dnssec"),
    ],
)
async def test_postfix_is_asked(version: tuple[int, int], main_cf: MainCf, settings: str, level: str, dns: str) -> None:
    main_cf.write(settings)
    assert await local_postfix() == Postfix(version, level, dns)


async def test_each_version_of_postfix_says_the_same(
    installation: Installation, main_cf: MainCf, tmp_path: Path
) -> None:
    script = f'#!/bin/sh\nexec {shlex.join(installation.command("postconf"))} "$@"\n'
    (tmp_path / "postconf").write_text(script)
    (tmp_path / "postconf").chmod(0o755)
    main_cf.write("smtp_tls_security_level = dane\nsmtp_dns_support_level = dnssec\n")
    with installation.mounted(), mounted("--bind", main_cf.folder, installation.root / "etc/postfix"):
        assert await local_postfix(str(tmp_path)) == Postfix(installation.version[:2], "dane", "dnssec")


async def test_a_postfix_that_is_not_configured(version: tuple[int, int], main_cf: MainCf) -> None:
    main_cf.remove()
    assert await local_postfix() == Postfix(version, "", "")


@pytest.mark.parametrize(
    ("settings", "dane"),
    [
        ("smtp_tls_security_level = may\n", "off: Postfix {} has smtp_tls_security_level = may"),
        (
            "smtp_tls_security_level = dane\nsmtp_dns_support_level = dnssec\n",
            "yield: Postfix {} has smtp_tls_security_level = dane",
        ),
    ],
)
def test_auto_follows_postfix(
    version: tuple[int, int], main_cf: MainCf, tmp_path: Path, settings: str, dane: str
) -> None:
    main_cf.write(settings)
    endpoint = f"unix:{tmp_path / 'socket'}"
    config: Config = {"server": {"listen": [endpoint], "control": ""}, "cache": {"path": str(tmp_path / "p.sqlite")}}
    with Daemon(tmp_path, config) as daemon:
        assert daemon.log == [
            f"info: event loop is {EVENT_LOOP}",
            f"info: reply.style is {(TLSRPT if version >= (3, 10) else PLAIN).format('.'.join(map(str, version)))}",
            f"info: reply.dane is {dane.format('.'.join(map(str, version)))}",
            f"info: ready; for main.cf: smtp_tls_policy_maps = socketmap:{endpoint}:postfix",
        ]
        main_cf.write("smtp_tls_security_level = encrypt\n")
        daemon.hang_up()
        encrypt = f"off: Postfix {'.'.join(map(str, version))} has smtp_tls_security_level = encrypt"
        daemon.wait_for(re.escape(f"reply.dane is {encrypt}"))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(None, "there is no postconf command on this machine", id="no Postfix"),
        pytest.param("exit 1", "postconf prints no version", id="fails"),
        pytest.param("echo later", "postconf prints no version", id="says something else"),
        pytest.param("head -c 100000 /dev/zero", "postconf prints no version", id="says a lot"),
        pytest.param("kill -9 $$", "postconf prints no version", id="is killed"),
    ],
)
async def test_no_postfix_is_normal(script: str | None, reason: str, tmp_path: Path) -> None:
    if script:
        (tmp_path / "postconf").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "postconf").chmod(0o755)
    with pytest.raises(NoPostfix) as raised:
        await local_postfix(str(tmp_path))
    assert str(raised.value) == reason


async def test_a_postconf_that_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "postconf").write_text("#!/nowhere/sh\n")
    (tmp_path / "postconf").chmod(0o755)
    with pytest.raises(NoPostfix) as raised:
        await local_postfix(str(tmp_path))
    assert str(raised.value) == f"{tmp_path / 'postconf'} cannot be run"
