"""The dashboard in a real browser: every screen, with and without JavaScript, wide and narrow, light and dark."""

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_html import FINDINGS
from tests.integration.conftest import namespace as namespace  # A fixture.
from tests.integration.publish.conftest import NAMESERVER, WEB, ZONE, Place
from tests.integration.publish.conftest import place as place  # A fixture.
from tests.integration.web.conftest import recent, tables
from tests.world.browser import Browser, browser, missing
from tests.world.daemon import Daemon
from tests.world.dashboard import TOKEN, Dashboard, fill

DOMAIN = "example.test"
SCREENS = (
    "/", "/sources?days=90", "/sources?days=14&source=google.com", "/results", "/reports", "/domains",
    f"/domains/{DOMAIN}", "/sending", "/do/add/", f"/do/enforce/{DOMAIN}", "/do/except/", "/no-such-page",
)  # fmt: skip
# Layout depends on the width and contrast on the scheme, so that these two have all of four.
LOOKS = [(360, True), (1400, False)]
# What is wrong beyond doubt, or asks for more than WCAG 2.2 AA does, is left to those who look.
AXE = """
const done = arguments[arguments.length - 1];
axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(found =>
  done(found.passes.length < 5 ? ["it did not look"] : found.violations
    .filter(one => ["serious", "critical"].includes(one.impact))
    .map(one => one.id + ": " + one.nodes.map(node => node.html.slice(0, 100)).slice(0, 3).join(" "))));
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if why := missing():
        pytest.skip(why)
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def dashboard(place: Place) -> Iterator[Dashboard]:
    """With reports, a published domain, and a daemon that has an exception and a policy that it could not fetch."""
    folder = place.folder
    place.mx(DOMAIN)
    assert place.run("add", DOMAIN).returncode == 0
    fill(folder / "reports.sqlite", recent())
    ours = tables(folder)
    ours["cache"] = {"path": str(folder / "policies.sqlite")}
    ours["publish"] |= {"addresses": [WEB], "zone": ZONE, "ca": "ca.test"}
    ours["dns"] = {"nameservers": [NAMESERVER], "timeout": 20.0}
    ours["fetch"] = {"ca_file": str(place.ca.file), "allow_addresses": ["127.0.0.0/8"]}
    with Daemon(folder, ours), Dashboard(folder, ours) as web:
        web.url = web.url.replace("//", f"//anna:{TOKEN}@")
        yield web


def axe() -> str:
    """axe-core, as the package of Python has it."""
    spec = importlib.util.find_spec("axe_core_python")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "axe.min.js").read_text()


def test_every_screen_can_be_read_and_has_no_fault_that_axe_finds(started: Browser, dashboard: Dashboard) -> None:
    script = axe()
    started.console(), started.requests()  # What another test has left.
    for path in SCREENS:
        for width, dark in LOOKS:
            started.open(dashboard.url + path, width=width, dark=dark)
            started.run('document.querySelectorAll("details").forEach(one => one.open = true)')
            assert (path, width, dark, started.run(FINDINGS)) == (path, width, dark, [])
            started.devtools("Runtime.evaluate", expression=script)
            assert (path, width, dark, started.run_async(AXE)) == (path, width, dark, [])
    console = [one for one in started.console() if "no-such-page" not in one]
    assert console == []
    places = {url.split("/")[2] for url in started.requests() if not url.startswith(("data:", "about:"))}
    assert places <= {f"127.0.0.1:{dashboard.port}", f"anna:{TOKEN}@127.0.0.1:{dashboard.port}"}


@pytest.mark.parametrize("scripts", [True, False], ids=["with-javascript", "without-javascript"])
def test_buttons(started: Browser, dashboard: Dashboard, place: Place, scripts: bool) -> None:
    started.devtools("Emulation.setScriptExecutionDisabled", value=not scripts)
    try:
        started.open(f"{dashboard.url}/domains/{DOMAIN}")
        assert bool(started.run("return document.querySelector('button.copy')")) is scripts
        click(started, f"a[href='/do/enforce/{DOMAIN}']", f"/do/enforce/{DOMAIN}")
        started.run("document.querySelector('#f-reason').value = 'It has to be.'")
        submit(started, "What it says")
        assert "mode: enforce" in (place.served(DOMAIN) or "")
        click(started, "main a[href^='/domains/']", f"/domains/{DOMAIN}")
        assert "forced: It has to be." in started.run("return document.querySelector('main').innerText")
        click(started, f"a[href='/do/testing/{DOMAIN}']", f"/do/testing/{DOMAIN}")
        submit(started, "What it says")
        assert "mode: testing" in (place.served(DOMAIN) or "")
        started.open(f"{dashboard.url}/do/except/")
        for name, value in {"domain": "broken.test", "until": "2999-12-31", "reason": "known"}.items():
            started.run("document.querySelector(arguments[0]).value = arguments[1]", f"#f-{name}", value)
        submit(started, "What it says")
        click(started, "main a[href='/sending']", "/sending")
        assert "broken.test" in started.run("return document.querySelector('main').innerText")
        click(started, "a[href='/do/unexcept/broken.test']", "/do/unexcept/broken.test")
        submit(started, "What it says")
        started.open(f"{dashboard.url}/domains")
        assert bool(started.run("return document.querySelector('button.sort')")) is scripts
    finally:
        started.devtools("Emulation.setScriptExecutionDisabled", value=False)


def test_the_keyboard_reaches_every_button(started: Browser, dashboard: Dashboard) -> None:
    started.open(f"{dashboard.url}/domains/{DOMAIN}")
    expected = started.run("return [...document.querySelectorAll('a, button, summary')].map(one => one.textContent)")
    reached = []
    for _ in expected:
        started.press("\ue004")  # Tab
        reached.append(started.run("return document.activeElement.textContent"))
        assert started.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached == expected


def click(window: Browser, what: str, path: str) -> None:
    window.run("document.querySelector(arguments[0]).click()", what)
    wait_until(lambda: window.run("return location.pathname + document.readyState") == f"{path}complete")


def submit(window: Browser, heading: str) -> None:
    window.run("document.querySelector('form button').click()")
    wait_until(lambda: heading in str(window.run("return document.readyState + document.body.innerText")))


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
