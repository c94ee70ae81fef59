"""What doctor says of the server of a fleet: a real one, with users and a certificate that are right or wrong."""

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts.cache.fleet_rights import Inspection, acl_line, inspect
from postfix_mtasts.config import DaneSetting
from postfix_mtasts.config_file import read_config
from postfix_mtasts.config_fleet import FleetPlace
from postfix_mtasts.postfix.reply import Style
from postfix_mtasts.query.doctor.check_fleet import check_fleet, judged
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.query.running.client import Running
from tests.world.ca import Ca
from tests.world.daemon import toml
from tests.world.fleet import ACL, HERE, PASSWORD, Shared, valkey
from tests.world.https import HttpsServer

WITHOUT = "policies are found without it, and are not shared"
HASH = hashlib.sha256(PASSWORD.encode()).hexdigest()
TOO_MUCH = (
    "read keys of others, write keys of others, publish to others, list all keys, configure the server, see its users"
)


@pytest.fixture(scope="module", params=[lambda: HERE, valkey], ids=["of this machine", "Valkey of Debian 13"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("fleet")
    with Shared(folder, Ca(folder), program=request.param()) as server:
        yield server


async def found(folder: Path, fleet: dict[str, Any], daemon: Running | None = None) -> list[Finding]:
    """What doctor finds with a table [fleet]."""
    file = folder / "postfix-mtasts.toml"
    file.write_text(toml({"fleet": fleet}))
    return await check_fleet(read_config(str(file)), daemon, time.time())


def running(fleet: dict[str, object] | None) -> Running:
    return Running(1, 0.0, "/etc/x.toml", 0.0, (), Style.PLAIN, DaneSetting.OFF, None, {"fleet": fleet})


async def test_all_is_well(server: Shared, tmp_path: Path) -> None:
    well = Finding(
        "fleet",
        Status.OK,
        f"policies are shared on rediss://127.0.0.1:{server.port}",
        "its user may do what is needed there, and no more",
    )
    assert await found(tmp_path, server.config) == [well]
    assert await found(tmp_path, server.config, running({"works": True, "trouble": None})) == [well]
    with server.admin() as admin:
        assert admin.dbsize() == 0
    assert await found(tmp_path, {}) == []


async def test_what_the_daemon_says(server: Shared, tmp_path: Path) -> None:
    place = f"rediss://127.0.0.1:{server.port}"
    assert await found(tmp_path, server.config, running({"works": False, "trouble": "Timeout"})) == [
        Finding(
            "fleet",
            Status.WARNING,
            f"the daemon cannot use the fleet's server {place}: Timeout",
            f"{WITHOUT}; it tries again every half a minute",
        )
    ]
    assert await found(tmp_path, server.config, running(None)) == [
        Finding(
            "restart",
            Status.WARNING,
            f"the running daemon does not share policies on {place}",
            "[fleet] was configured after it was started",
            "run",
            "systemctl restart postfix-mtasts",
        )
    ]


@pytest.mark.parametrize(
    ("wrong", "credentials", "what", "remedy"),
    [
        pytest.param(
            {"url": "rediss://127.0.0.1:1"},
            None,
            "rediss://127.0.0.1:1: .*Connection refused.*",
            "see whether it runs, and whether a firewall is in between",
            id="port",
        ),
        pytest.param(
            {"ca_file": ""},
            None,
            "rediss://127.0.0.1:PORT: .*certificate verify failed.*",
            "its certificate must be for the host that is named, and from a CA in fleet.ca_file",
            id="CA",
        ),
        pytest.param(
            {"url": "rediss://127.0.0.2:PORT"},
            None,
            "rediss://127.0.0.2:PORT: .*certificate verify failed.*",
            "its certificate must be for the host that is named, and from a CA in fleet.ca_file",
            id="host",
        ),
        pytest.param(
            {},
            "mtasts:wrong",
            "rediss://127.0.0.1:PORT: .*invalid username-password pair.*",
            "compare fleet.credentials with the hash of that user in users.acl of the server",
            id="password",
        ),
        pytest.param(
            {"credentials": ""},
            None,
            "rediss://127.0.0.1:PORT: .*Authentication required.*",
            "it asks for a password: set fleet.credentials",
            id="no password",
        ),
        pytest.param(
            {"url": "redis://127.0.0.1:PORT"},
            None,
            "redis://127.0.0.1:PORT: .*",
            "see whether it runs, and whether a firewall is in between",
            id="no TLS",
        ),
    ],
)
async def test_a_server_that_cannot_be_used(
    server: Shared, tmp_path: Path, wrong: dict[str, str], credentials: str | None, what: str, remedy: str
) -> None:
    ours = {name: value.replace("PORT", str(server.port)) for name, value in wrong.items()}
    fleet = server.config | ours
    if credentials:
        Path(str(fleet["credentials"])).write_text(credentials)
    if wrong.get("url") == "rediss://127.0.0.2:PORT":
        with server.admin() as admin:
            admin.config_set("bind", "127.0.0.1 127.0.0.2")
    (one,) = await found(tmp_path, fleet)
    assert (one.check, one.status, one.why) == ("fleet", Status.WARNING, f"{WITHOUT}; {remedy}")
    assert re.fullmatch(f"the fleet's server {what.replace('PORT', str(server.port))}", one.what)


async def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    ca = Ca(tmp_path)
    with HttpsServer() as https:
        https.policy("localhost", "", ca.issue("localhost", kind="expired").server_context())
        url = f"rediss://localhost:{https.port}"
        (one,) = await found(tmp_path, {"url": url, "ca_file": str(ca.file)})
    assert (one.check, one.status, one.why) == ("fleet", Status.WARNING, f"{WITHOUT}; renew its certificate")
    assert f"{url}: Error 1 connecting to localhost:{https.port}." in one.what


async def test_rights(server: Shared, tmp_path: Path) -> None:
    place = f"rediss://127.0.0.1:{server.port}"
    with server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "less", "on", f"#{HASH}", *words_without("set", "publish", "time"))
        admin.execute_command("ACL", "SETUSER", "none", "on", f"#{HASH}", "+ping")
    config = server.config
    not_needed = "whoever has the password of a relay may do this, and it is not needed"
    keys = (
        "del, eval, get, getrange, pttl, publish, set, subscribe, zadd, zrange, zrangebyscore, zremrangebyscore, zscore"
    )
    for user, other, what, why in (
        ("less", {}, "may not use publish, set, time", WITHOUT),
        ("none", {}, "may not use multi", WITHOUT),
        ("admin", {}, f"may {TOO_MUCH}", not_needed),
        ("mtasts", {"prefix": "mta:"}, f"may not use {keys}", WITHOUT),
    ):
        Path(str(config["credentials"])).write_text(f"{user}:{'admin' if user == 'admin' else PASSWORD}")
        line = acl_line(FleetPlace(None, user=user, prefix=other.get("prefix", "mtasts:")))
        told = f"the fleet's server {place}: user {user} {what}"
        expected = Finding("fleet-rights", Status.WARNING, told, why, "users.acl of the server", line)
        assert await found(tmp_path, {**config, **other}) == [expected]
    with server.admin() as admin:
        assert admin.dbsize() == 0


def words_without(*commands: str) -> list[str]:
    """What the user of a relay may do, but for some commands."""
    line = acl_line(FleetPlace(None))
    return [word for word in line.split()[4:] if word.removeprefix("+") not in commands]


def test_the_user_that_is_advised_is_that_of_contrib(server: Shared) -> None:
    (ours,) = (line for line in ACL.read_text().splitlines() if line.startswith("user mtasts "))
    assert sorted(acl_line(FleetPlace(None, user="mtasts")).replace("HASH", "0" * 64).split()) == sorted(ours.split())
    with server.admin() as admin:
        line = acl_line(FleetPlace(None, user="advised")).replace("HASH", HASH)
        admin.execute_command("ACL", "SETUSER", *line.split()[1:])
    seen = inspect(replace(server.place, user="advised"))
    assert (seen.lacking, seen.too_much, seen.open_sentinels) == ((), (), ())
    assert seen.clock is not None
    assert abs(seen.clock - time.time()) < 60


PLACE = FleetPlace(("cache.example", 6380), tls=True, user="mtasts")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Inspection(1000.0, 0.001, (), (), ()), []),
        (
            Inspection(1000.0 + 7200, 0.001, (), (), ()),
            [
                Finding(
                    "fleet-clock",
                    Status.WARNING,
                    "the clock of this machine is 2 hours behind that of the fleet's server rediss://cache.example:6380",
                    "this relay finds all policies for itself; set the wrong one of them",
                    "run",
                    "timedatectl timesync-status",
                )
            ],
        ),
        (
            Inspection(1000.0, 0.5, (), (), ()),
            [
                Finding(
                    "fleet",
                    Status.WARNING,
                    "the fleet's server rediss://cache.example:6380 answers within 0.5 s; the daemon waits for 0.2 s",
                    f"{WITHOUT}; it must be near, and not be busy with other things",
                )
            ],
        ),
        (
            Inspection(1000.0, 0.001, (), (), ("sentinel.example",)),
            [
                Finding(
                    "fleet-sentinel",
                    Status.WARNING,
                    "the sentinel sentinel.example asks for no password",
                    "whoever reaches it can name a server of his own, and so decide where mail goes",
                    "sentinel.conf",
                    "aclfile FILE, with the users of contrib/valkey/sentinel.acl",
                )
            ],
        ),
    ],
)
def test_what_follows(seen: Inspection, expected: list[Finding]) -> None:
    assert list(judged(PLACE, seen, 1000.0)) == expected


async def test_a_configuration_that_is_wrong(server: Shared, tmp_path: Path) -> None:
    missing = {**server.config, "credentials": str(tmp_path / "missing")}
    what = f'fleet.credentials = "{tmp_path}/missing": there is no such file'
    assert await found(tmp_path, missing) == [Finding("config", Status.ERROR, what, "the daemon does not start")]


def test_without_the_library(tmp_path: Path) -> None:
    """Python finds another module of its name, which cannot be imported."""
    (tmp_path / "redis.py").write_text("raise ImportError\n")
    file = tmp_path / "postfix-mtasts.toml"
    file.write_text(toml({"fleet": {"url": "rediss://127.0.0.1:1"}}))
    command = [str(Path(sys.executable).with_name("postfix-mtasts-query")), "doctor", "--config", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, check=False).stdout
    lines = ["error: [fleet] needs a library of Python, redis", "    the daemon does not start", "  run:"]
    assert "\n".join([*lines, "    apt install python3-redis\n"]) in shown
