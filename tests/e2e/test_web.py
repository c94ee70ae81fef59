"""The dashboard in a browser: every screen and button, with and without JavaScript, wide and narrow, light and dark.

One browser and one dashboard on the data of `make demo-web` are for all tests here, which leave it as they need it.
"""

import importlib.util
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_mtasts.web.buttons import BUTTONS
from tests.demo_web import shown
from tests.e2e.test_html import FINDINGS
from tests.integration.conftest import namespace as namespace  # A fixture.
from tests.unit.reports.html import parse
from tests.world.browser import Browser, browser, missing
from tests.world.dashboard import TOKEN, Dashboard

DOMAIN = "example.com"
SCREENS = (
    "/", "/sources?days=90", "/sources?days=14&source=google.com", "/results", "/reports", "/domains",
    f"/domains/{DOMAIN}", "/domains/broken.test", "/sending", "/no-such-page",
)  # fmt: skip
# The width and whether it is dark, with JavaScript and without: of these three, any two come together in all ways.
LOOKS = {True: ((360, True), (1400, False)), False: ((360, False), (1400, True))}
# What is wrong beyond doubt, or asks for more than WCAG 2.2 AA does, is left to those who look.
AXE = """
const done = arguments[arguments.length - 1];
axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(found =>
  done(found.passes.length < 5 ? ["it did not look"] : found.violations
    .filter(one => ["serious", "critical"].includes(one.impact))
    .map(one => one.id + ": " + one.nodes.map(node => node.html.slice(0, 100)).slice(0, 3).join(" "))));
"""
# Words of tables that go on in another line, where no hyphen is.
BROKEN = """
const broken = [], range = document.createRange();
for (const cell of document.querySelectorAll("th, td")) {
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/[^\\s-]+/g)) {
    range.setStart(texts.currentNode, word.index);
    range.setEnd(texts.currentNode, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map(one => one.top)).size > 1) broken.push(word[0]);
  }
}
return broken;
"""

pytestmark = pytest.mark.timeout(400)  # Some tests take half a minute on a machine that does nothing else.


def _axe() -> str:
    """axe-core, as the package of Python has it."""
    spec = importlib.util.find_spec("axe_core_python")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "axe.min.js").read_text()


AXE_CORE = _axe()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if why := missing():
        pytest.skip(why)
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def dashboard(namespace: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with shown(tmp_path_factory.mktemp("demo")) as web:
        yield web


@pytest.fixture
def window(started: Browser, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """The browser, with JavaScript or without it."""
    allow_scripts(started, request.param)
    yield started
    allow_scripts(started, True)
    started.console(), started.requests()  # What another test need not see.


both_ways = pytest.mark.parametrize(
    ("window", "scripts"), [(True, True), (False, False)], indirect=["window"], ids=["with-javascript", "without"]
)


@both_ways
def test_every_screen_can_be_read_and_has_no_fault_that_axe_finds(
    window: Browser, dashboard: Dashboard, scripts: bool
) -> None:
    place = Place(window, dashboard, scripts=scripts)
    for path in (*SCREENS, place.link("/reports", "/reports/"), place.link("/reports", "/quarantine/")):
        for width, dark in LOOKS[scripts]:
            place.open(path, width=width, dark=dark)
            assert bool(window.run("return document.querySelector('button.sort, button.copy')")) is (
                scripts and bool(window.run("return document.querySelector('[data-sort], [data-copy]')"))
            )
            assert (path, width, dark, place.faults()) == (path, width, dark, [])
    console = [one for one in window.console() if "no-such-page" not in one]
    assert console == []
    places = {url.split("/")[2] for url in window.requests() if not url.startswith(("data:", "about:"))}
    assert places <= {f"127.0.0.1:{dashboard.port}", f"anna:{TOKEN}@127.0.0.1:{dashboard.port}"}


@both_ways
def test_every_button(window: Browser, dashboard: Dashboard, scripts: bool) -> None:
    place = Place(window, dashboard, scripts=scripts)
    domain, held = ("with.test", "news.test") if scripts else ("without.test", "partner.test")
    before = len(dashboard.log())
    of_it = f"/domains/{domain}"
    place.press("/domains", "add", "", domain=domain, mx=f"mx1.{domain}")
    place.press(of_it, "check", domain)
    place.press(of_it, "mx", domain)
    place.press(of_it, "enforce", domain, reason="It has to be.")
    assert "forced: It has to be." in place.text(of_it)
    place.press(of_it, "testing", domain)
    place.press(of_it, "probe", domain)
    place.press(of_it, "remove", domain)
    assert "being removed: " in place.text(of_it)
    place.press("/results", "compare", DOMAIN)
    place.press("/sending", "refresh", held)
    place.press("/sending", "forget", held)
    assert f"Forget a policy\n: {held}" not in place.text("/sending")
    place.press("/sending", "except", "", domain=domain, until="2999-12-31", reason="known")
    assert f"{domain} 2999-12-31" in " ".join(place.text("/sending").split())
    place.press("/sending", "unexcept", domain)
    place.press("/sources", "hide", "google.com")
    assert "Hidden until they change" in place.text("/sources")
    place.press("/sources?source=google.com", "unhide", "google.com")
    assert "Hidden until they change" not in place.text("/sources")
    number = place.link("/reports", "/quarantine/").removeprefix("/quarantine/")
    place.press(f"/quarantine/{number}", "accept", number)
    last = place.link("/reports", "/quarantine/", -1).removeprefix("/quarantine/")
    place.press(f"/quarantine/{last}", "drop", last)
    assert place.pressed == set(BUTTONS)
    words = [line.removeprefix("INFO: user=web, 127.0.0.1, command=postfix-mtasts-") for line in dashboard.log()]
    assert words[before:] == [
        f"publish add {domain} --mx mx1.{domain}: ok",
        f"publish check {domain}: error",
        f"publish mx {domain} --refresh: error",
        f"publish mode {domain} enforce '--force=It has to be.': ok",
        f"publish mode {domain} testing: ok",
        f"query --probe {domain}: nothing",
        f"publish remove {domain}: ok",
        f"query {DOMAIN}: ok",
        f"query cache refresh {held}: ok",
        f"query cache forget {held}: ok",
        f"query except add {domain} --until=2999-12-31 --reason=known: ok",
        f"query except remove {domain}: ok",
        "reports hide google.com: ok",
        "reports unhide google.com: ok",
        f"reports quarantine accept {number}: ok",
        f"reports quarantine drop {last}: ok",
    ]


def test_what_javascript_adds(started: Browser, dashboard: Dashboard) -> None:
    place = Place(started, dashboard)
    place.open("/domains")
    first = "return document.querySelector('table[data-sort] tbody th').innerText"
    ends = []
    for _ in range(2):
        started.run("document.querySelector('button.sort').click()")
        ends.append(started.run(first))
    assert ends == sorted(ends) != sorted(ends, reverse=True)
    # Numbers with their thousands apart are numbers, and "none" is less than any.
    started.run("[...document.querySelectorAll('button.sort')].find(one => one.textContent === 'Sessions').click()")
    sessions = "return [...document.querySelectorAll('td[data-name=Sessions]')].map(one => one.textContent)"
    *none, most = started.run(sessions)
    assert (set(none), most.replace(",", "").isdecimal()) == ({"none"}, True)
    # Times name their zone, and the page does not say otherwise.
    place.open(f"/domains/{DOMAIN}")
    times = started.run("return [...document.querySelectorAll('time')].map(one => [one.textContent, one.title])")
    assert times
    assert all(re.fullmatch(r".+ [AP]M UTC", text) and title.endswith(" UTC") for text, title in times), times
    foot = started.run("return document.querySelector('footer').innerText")
    assert foot.endswith(". Times are in UTC, but for those that name a zone.")


def test_what_a_command_prints_has_no_gaps(started: Browser, dashboard: Dashboard) -> None:
    place = Place(started, dashboard)
    place.press("/results", "compare", DOMAIN)
    heights = started.run("return [...document.querySelectorAll('.output li')].map(one => one.offsetHeight)")
    whole = started.run("return document.querySelector('.output').offsetHeight")
    assert len(heights) > 5
    assert sum(heights) == pytest.approx(whole, abs=len(heights))


def test_words_are_whole_where_there_is_room(started: Browser, dashboard: Dashboard) -> None:
    for path in ("/domains", "/domains/broken.test", "/sending", "/reports"):
        Place(started, dashboard).open(path, width=1200)
        assert (path, started.run(BROKEN)) == (path, [])


def test_on_paper_is_what_is_read(started: Browser, dashboard: Dashboard) -> None:
    Place(started, dashboard).open(f"/domains/{DOMAIN}")
    visible = "return [...document.querySelectorAll(arguments[0])].filter(one => one.getClientRects().length).length"
    started.devtools("Emulation.setEmulatedMedia", media="print")
    try:
        assert (started.run(visible, ".tabs, .button, .copy"), started.run(visible, "main h2")) == (0, 3)
    finally:
        started.devtools("Emulation.setEmulatedMedia", media="")


def test_the_keyboard_reaches_every_button(started: Browser, dashboard: Dashboard) -> None:
    Place(started, dashboard).open(f"/domains/{DOMAIN}")
    expected = started.run("return [...document.querySelectorAll('a, button, summary')].map(one => one.textContent)")
    reached = []
    for _ in expected:
        started.press("\ue004")  # Tab
        reached.append(started.run("return document.activeElement.textContent"))
        assert started.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached == expected


def allow_scripts(window: Browser, allowed: bool) -> None:
    """Whether the scripts of pages are run."""
    window.devtools("Emulation.setScriptExecutionDisabled", value=not allowed)


class Place:
    """What somebody sees in the window, and presses."""

    def __init__(self, window: Browser, dashboard: Dashboard, *, scripts: bool = True) -> None:
        self.window, self.dashboard, self.scripts = window, dashboard, scripts
        self.width, self.dark = LOOKS[scripts][0]
        self.pressed: set[str] = set()

    def open(self, path: str, *, width: int | None = None, dark: bool | None = None) -> None:
        """A page, in a look of its own or in that of this place."""
        url = self.dashboard.url.replace("//", f"//anna:{TOKEN}@") + path
        self.window.open(url, width=width or self.width, dark=self.dark if dark is None else dark)

    def text(self, path: str) -> str:
        """What a page says."""
        self.open(path)
        return str(self.window.run("return document.querySelector('main').innerText"))

    def link(self, path: str, start: str, number: int = 0) -> str:
        """One of the links on a page that begin so."""
        with self.dashboard.client() as client:
            links = [one.attributes["href"] or "" for one in parse(client.get(path).text).all("a")]
        return [one for one in links if one.startswith(start)][number]

    def faults(self) -> list[str]:
        """What is wrong with how the page looks, and with how it is made."""
        found = self.window.run(FINDINGS)  # It opens what can be opened.
        # axe-core needs JavaScript. The page's own script, which was not run when it was loaded, is not run now.
        allow_scripts(self.window, True)
        self.window.devtools("Runtime.evaluate", expression=AXE_CORE)
        found += self.window.run_async(AXE)
        allow_scripts(self.window, self.scripts)
        return [str(one) for one in found]

    def press(self, path: str, name: str, target: str, **form: str) -> None:
        """Press a button on a page, fill in the form of the page before the change, and send it."""
        self.open(path)
        where = f"/do/{name}/{target}"
        self.window.run("document.querySelector(arguments[0]).click()", f"main a[href='{where}']")
        self._wait_for("return location.pathname + document.readyState", f"{where}complete")
        assert (where, self.faults()) == (where, [])
        for field, value in form.items():
            self.window.run("document.querySelector(arguments[0]).value = arguments[1]", f"#f-{field}", value)
        self.window.run("document.querySelector('form button').click()")
        self._wait_for(
            "return document.readyState + document.querySelector('main h2')?.innerText", "completeWhat it says"
        )
        assert (where, self.faults()) == (where, [])
        self.pressed.add(name)

    def _wait_for(self, script: str, value: str) -> None:
        deadline = time.monotonic() + 60
        while self.window.run(script) != value:
            assert time.monotonic() < deadline, self.window.run("return document.body.innerText")
            time.sleep(0.02)
