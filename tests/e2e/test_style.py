"""Which style the daemon chooses by itself, beside the Postfix of this machine."""

from pathlib import Path

import pytest

from postfix_mtasts.postfix import NoPostfix, Postfix, local_postfix
from tests.world.daemon import Daemon
from tests.world.postfix import HERE

PLAIN = "plain (Postfix {} does not know the attributes of tlsrpt)"
TLSRPT = "tlsrpt (Postfix {} knows its attributes, and checks MX names by them)"


@pytest.fixture
def version() -> tuple[int, int]:
    if why := HERE.missing():
        pytest.skip(why)
    return HERE.version[:2]


async def test_postfix_is_asked(version: tuple[int, int]) -> None:
    assert await local_postfix() == Postfix(version)


def test_auto_follows_the_version(version: tuple[int, int], tmp_path: Path) -> None:
    endpoint = f"unix:{tmp_path / 'socket'}"
    with Daemon(tmp_path, {"server": {"listen": [endpoint]}, "cache": {"path": str(tmp_path / "p.sqlite")}}) as daemon:
        (line,) = daemon.log
    chosen = (TLSRPT if version >= (3, 10) else PLAIN).format(".".join(map(str, version)))
    main_cf = f"smtp_tls_policy_maps = socketmap:{endpoint}:postfix"
    assert line == f"info: ready with reply.style {chosen}; in main.cf: {main_cf}"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(None, "no postconf on this machine", id="no Postfix"),
        pytest.param("exit 1", "postconf names no version", id="fails"),
        pytest.param("echo later", "postconf names no version", id="says something else"),
        pytest.param("head -c 100000 /dev/zero", "postconf names no version", id="says a lot"),
        pytest.param("kill -9 $$", "postconf names no version", id="is killed"),
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
