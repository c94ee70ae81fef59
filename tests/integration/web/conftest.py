"""A dashboard with made reports, beside a daemon and published domains in a small Internet."""

import datetime
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from postfix_mtasts.reports.facts import Stored
from tests.unit.reports.made import TODAY, made
from tests.world.dashboard import Dashboard, fill

NOW = datetime.datetime.now(datetime.UTC)


def recent(days: int = 90) -> Iterator[Stored]:
    """The made reports, as if the last one had come today."""
    shift = NOW.date() - TODAY
    for one in made(days):
        report = replace(one.report, start=one.report.start + shift, end=one.report.end + shift)
        yield replace(one, report=report)


def tables(folder: Path) -> dict[str, dict[str, object]]:
    return {
        "server": {"control": str(folder / "control"), "listen": [f"unix:{folder / 'socket'}"]},
        "dns": {"nameservers": ["127.0.0.1:1"], "timeout": 0.2},
        "publish": {
            "path": str(folder / "publish.sqlite"),
            "policies": str(folder / "policies"),
            "zone": "sts.provider.test",
            "reports": ["mailto:tlsrpt@provider.test"],
        },
        "reports": {"path": str(folder / "reports.sqlite")},
    }


def changes(folder: Path) -> list[tuple[str, str, str]]:
    """The history of all published domains: who, what, and to what."""
    path = folder / "publish.sqlite"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT domain, who, what FROM history ORDER BY id").fetchall()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """With reports, and neither a daemon nor published domains."""
    folder = tmp_path_factory.mktemp("web")
    fill(folder / "reports.sqlite", recent())
    with Dashboard(folder, tables(folder)) as started:
        yield started


@pytest.fixture
def client(dashboard: Dashboard) -> Iterator[httpx.Client]:
    with dashboard.client() as opened:
        yield opened
