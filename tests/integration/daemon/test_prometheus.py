"""A real Prometheus scrapes the daemon and evaluates the alerts of contrib/; what Grafana would ask is asked of it."""

import json
import re
import shlex
import socket
import subprocess
import time
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts.query.command import SUBCOMMANDS, parser
from tests.integration.conftest import World
from tests.integration.daemon.test_metrics import TABLE, TYPES, day, exception, policy, scraped
from tests.world.daemon import Daemon, ask, toml
from tests.world.daemon import query as run_query
from tests.world.programs import program

ROOT = Path(__file__).parents[3]
CONTRIB = ROOT / "contrib"
RULES = CONTRIB / "prometheus/alerts.yml"
DASHBOARD = json.loads((CONTRIB / "grafana/postfix-mtasts.json").read_text())
URL = "http://127.0.0.1:9090"
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())


def names(expression: str) -> set[str]:
    """The metrics in an expression of PromQL."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|without|ignoring)\s*\([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:mtasts|process|up)\w*", bare))


def expressions() -> list[str]:
    """What the dashboard asks, with its variables filled in as Grafana does."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [one.replace("$instance", ".*").replace("$__rate_interval", "1m") for one in found]


def series(name: str) -> str:
    """The metric of a series: histograms have three kinds, and summaries two."""
    base = re.sub(r"_(?:bucket|sum|count)$", "", name)
    return base if TYPES.get(base) in {"histogram", "summary"} else name


def test_the_rules_are_sound() -> None:
    done = subprocess.run([program("promtool"), "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"SUCCESS: {len(ALERTS)} rules found" in done.stdout


def test_each_alert_fires_when_it_should() -> None:
    cases = sorted((ROOT / "tests/data/prometheus").glob("*.test.yml"))
    done = subprocess.run([program("promtool"), "test", "rules", *cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = "".join(path.read_text() for path in cases)
    assert set(re.findall(r"alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts", text)) == set(ALERTS)


def test_the_alerts_ask_for_metrics_that_there_are_and_are_in_the_manual() -> None:
    asked = re.findall(r"^ +expr: (?:>-\n)?((?:.+\n(?= {10}))*.+)", RULES.read_text(), re.MULTILINE)
    assert len(asked) == len(ALERTS)
    assert {series(name) for one in asked for name in names(one)} - {"up"} <= set(TYPES)
    manual = (ROOT / "docs/operations.md").read_text()
    assert re.findall(r"^\| `(Mtasts\w+)` ", manual, re.MULTILINE) == ALERTS
    assert {name for name in TYPES if f"`{name}" not in manual and not name.startswith("process_")} == set()


def test_each_alert_has_a_summary_and_a_command_that_there_is() -> None:
    text = RULES.read_text()
    assert len(re.findall(r"^ +summary: .", text, re.MULTILINE)) == len(ALERTS)
    commands = re.findall(r"^ +command: (.+)$", text, re.MULTILINE)
    assert len(commands) == len(ALERTS)
    for command in (one.strip() for line in commands for one in line.split(";")):
        words = shlex.split(command)
        assert words[0] in ("postfix-mtasts-query", "systemctl", "journalctl", "postqueue")
        if words[0] == "postfix-mtasts-query":
            assert words[1] in SUBCOMMANDS, command
            parser(words[1]).parse_args(words[2:])


def test_the_dashboard_can_be_imported_again_and_again() -> None:
    assert DASHBOARD["uid"] == "postfix-mtasts"
    assert [one["name"] for one in DASHBOARD["__inputs"]] == ["DS_PROMETHEUS"]
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["instance"]
    sources = {part["datasource"]["uid"] for panel in DASHBOARD["panels"] for part in (panel, *panel["targets"])}
    assert sources == {"${DS_PROMETHEUS}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(x < 24 for x, _ in cells)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    asked = {series(name) for one in expressions() for name in names(one)}
    assert asked <= set(TYPES)
    unshown = {"mtasts_shadow_start_timestamp_seconds", "process_start_time_seconds", "process_virtual_memory_bytes"}
    assert set(TYPES) - asked == unshown


def query(expression: str) -> list[dict[str, Any]]:
    """What Prometheus finds now."""
    with urllib.request.urlopen(
        f"{URL}/api/v1/query?{urllib.parse.urlencode({'query': expression})}", timeout=20
    ) as got:
        found = json.load(got)
    assert found["status"] == "success"
    result: list[dict[str, Any]] = found["data"]["result"]
    return result


def firing() -> set[str]:
    """The alerts that fire."""
    with urllib.request.urlopen(f"{URL}/api/v1/alerts", timeout=20) as got:
        return {one["labels"]["alertname"] for one in json.load(got)["data"]["alerts"] if one["state"] == "firing"}


@contextmanager
def prometheus(folder: Path) -> Iterator[None]:
    """One with the configuration of contrib/, which looks every second, and does not wait before it tells."""
    configuration = (CONTRIB / "prometheus/prometheus.yml").read_text()
    often = "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n"
    (folder / "prometheus.yml").write_text(often + configuration)
    (folder / "alerts.yml").write_text(re.sub(r"^( +for): .*$", r"\1: 1s", RULES.read_text(), flags=re.MULTILINE))
    words = [program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*words, "--web.listen-address=127.0.0.1:9090"], stdout=log, stderr=log)
    try:
        wait_until(lambda: is_ready() or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield
    finally:
        process.kill()
        process.wait()


def is_ready() -> bool:
    try:
        return bool(urllib.request.urlopen(f"{URL}/-/ready", timeout=5).read())
    except OSError:
        return False


def wait_until(holds: Any, seconds: float = 60) -> None:
    """Until something holds, which nothing tells."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_prometheus_scrapes_the_daemon_and_tells_of_trouble(world: World, tmp_path: Path) -> None:
    world.publish("scraped.test", policy("scraped.test"))
    (tmp_path / "prometheus").mkdir()
    settings = toml(world.configuration(tmp_path, metrics=TABLE)) + exception("exempt.test", 30)
    with Daemon(tmp_path, settings) as daemon, prometheus(tmp_path / "prometheus"):
        assert ask(f"unix:{tmp_path}/socket", "scraped.test").startswith("OK secure ")
        wait_until(lambda: query('mtasts_queries_total{answer="secure"} == 1'))
        (up,) = query("up")
        assert (up["metric"]["job"], up["metric"]["instance"]) == ("postfix-mtasts", "127.0.0.1:9461")
        sampled = {name.partition("{")[0] for name in scraped()}
        known = {one["metric"]["__name__"] for one in query('{job="postfix-mtasts"}')}
        assert sampled <= known
        for expression in expressions():
            found = query(expression)
            # Without an exception, a failure or a fleet, there is nothing to show.
            assert found or re.search("earliest|_failed|result=|_fleet_", expression) or "rate(" in expression, (
                expression
            )
        assert firing() == set()
        with daemon.stopped():
            wait_until(lambda: firing() == {"MtastsDown"})
        wait_until(lambda: firing() == set())
        words = ("except", "add", "soon.test", "--until", str(day(3)), "--reason", "x", "--config", daemon.config)
        status, _, _ = run_query(*words)
        assert status == 0
        wait_until(lambda: firing() == {"MtastsExceptionEnds"})
        (tmp_path / "policies.sqlite").unlink()
        ask(f"unix:{tmp_path}/socket", "another.test")  # It notices.
        wait_until(lambda: "MtastsDatabaseTrouble" in firing())


def test_the_commands_of_the_manual(world: World, tmp_path: Path) -> None:
    section = (ROOT / "docs/operations.md").read_text().split("## What to watch\n")[1].split("\n## ")[0]
    commands = re.findall(r"^ {4,}(\S.*)$", section, re.MULTILINE)
    unit = (ROOT / "debian/postfix-mtasts.postfix-mtasts-metrics.socket").read_text()
    assert commands[:2] == [
        "apt install python3-prometheus-client",
        "systemctl enable --now postfix-mtasts-metrics.socket",
    ]
    assert f"#     {commands[1]}\n" in unit
    (address,) = re.findall(r"^ListenStream=(.*):(\d+)$", unit, re.MULTILINE)
    with (
        socket.create_server((address[0], int(address[1]))) as listener,
        Daemon(tmp_path, world.configuration(tmp_path), passed=[(listener, "metrics")]),
    ):
        shown = subprocess.run(shlex.split(commands[2]), capture_output=True, text=True, check=True).stdout
    assert "\nmtasts_answering 1.0\n" in shown
    words = [program("promtool"), *shlex.split(commands[3].replace("/etc/prometheus/alerts.yml", str(RULES)))[1:]]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    assert len(commands) == 4


def test_the_library_is_an_extra_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["metrics"] == ["prometheus-client>=0.16"]
    assert re.search(
        r"^Suggests:.*(?:\n .*)*python3-prometheus-client", (ROOT / "debian/control").read_text(), re.MULTILINE
    )


@pytest.fixture(autouse=True)
def _namespace(namespace: None) -> None:
    """All of it, for Prometheus."""
