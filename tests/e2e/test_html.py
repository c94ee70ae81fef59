"""The pages of reports in a real browser: as files, and from a web server that counts what it is asked."""

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts.reports.report import DkimState
from postfix_mtasts.reports.site import write_pages
from postfix_mtasts.reports.views import WINDOWS
from tests.unit.reports.made import NOW, made, views
from tests.unit.reports.test_pages import HOSTILE, everywhere
from tests.world.browser import Browser, browser, missing

REPORTS = list(made())
FAILED = next(one for one in REPORTS if one.report.policies[0].failures)
FORGED = next(one for one in REPORTS if one.dkim.state is not DkimState.VERIFIED)
PAGES = (
    "index.html", "sources-2.html", "sources-90.html", "results-2.html", "results-14.html", "results-90.html",
    "reports-1.html", "reports-2.html", f"report-{FAILED.key}.html", f"report-{FORGED.key}.html",
)  # fmt: skip
IMAGES = Path(__file__).parents[2] / "docs/images"
WIDTHS = (320, 360, 768, 1400)

# Which elements that hold text cannot be seen in the window, are small, or do not stand out from their background (WCAG
# 2.2, 1.4.3). What is for screen readers alone is left out.
FINDINGS = """
document.querySelectorAll("details").forEach(one => one.open = true);
const found = [], limit = document.documentElement.clientWidth;
const wide = document.documentElement.scrollWidth;
if (wide > limit) found.push("the page is " + wide + " wide");
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const light = colour => numbers(colour).slice(0, 3).map(one => one / 255)
  .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
  .reduce((sum, one, index) => sum + one * [0.2126, 0.7152, 0.0722][index], 0);
const behind = one => {
  const colour = getComputedStyle(one).backgroundColor;
  return numbers(colour)[3] === 0 ? (one.parentElement ? behind(one.parentElement) : "rgb(255, 255, 255)") : colour;
};
for (const one of document.body.querySelectorAll("*")) {
  if (one.closest("svg")) continue;
  if (![...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
  const style = getComputedStyle(one), box = one.getBoundingClientRect(), what = one.textContent.trim().slice(0, 40);
  const hidden = one.closest(".unseen, thead");
  if (hidden && getComputedStyle(hidden).clipPath !== "none") continue;
  if (box.width === 0 || box.height === 0) found.push("is not seen: " + what);
  if (box.right > limit + 1 || box.left < -1) found.push("is outside: " + what);
  const [dark, bright] = [light(style.color), light(behind(one))].sort((a, b) => a - b);
  const contrast = (bright + 0.05) / (dark + 0.05);
  if (contrast < 4.5) found.push("has a contrast of " + contrast.toFixed(2) + ": " + what);
  if (parseFloat(style.fontSize) < 12) found.push("is small: " + what);
}
return [...new Set(found)];
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("html") / "site"
    write_pages(folder, {days: views(REPORTS, days) for days in WINDOWS}, REPORTS, NOW)
    return folder


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("html") / "hostile"
    reports = [everywhere(text, f"{number:020}") for number, text in enumerate(HOSTILE)]
    write_pages(folder, {days: views(reports, days) for days in WINDOWS}, reports, NOW)
    return folder


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if why := missing():
        pytest.skip(why)
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def window(started: Browser) -> Browser:
    started.open("about:blank")
    started.console(), started.requests()  # What another test has left.
    return started


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_can_be_read(site: Path, window: Browser, width: int, dark: bool) -> None:
    for page in PAGES:
        url = (site / page).as_uri()
        window.open(url, width=width, dark=dark)
        assert window.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
        assert (page, window.run(FINDINGS)) == (page, [])
        assert (page, window.console()) == (page, [])
        assert [one for one in window.requests() if not one.startswith("data:image/svg+xml,")] == [url]


def test_dark_is_dark(site: Path, window: Browser) -> None:
    colours = []
    for dark in (False, True):
        window.open((site / "index.html").as_uri(), dark=dark)
        colours.append(window.run("return getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(244, 246, 249)", "rgb(17, 22, 29)"]


@pytest.mark.parametrize("width", [320, 1400])
def test_what_a_report_says_does_nothing_and_stays_within_its_cell(
    hostile_site: Path, window: Browser, width: int
) -> None:
    pages = sorted(hostile_site.glob("*.html"))
    assert len(pages) == 7 + len(HOSTILE)
    for page in pages:
        window.open(page.as_uri(), width=width)
        found = window.run(FINDINGS)
        assert (page.name, found) == (page.name, [])
        assert (page.name, window.console()) == (page.name, [])
        assert [one for one in window.requests() if not one.startswith("data:image/svg+xml,")] == [page.as_uri()]
        assert window.run("return document.links.length") == window.run(
            "return [...document.links].filter(one => one.href.startsWith('file:')).length"
        )


@pytest.mark.parametrize("width", [360, 1400])
def test_a_screen_reader_finds_tables(site: Path, window: Browser, width: int) -> None:
    for page in PAGES:
        window.open((site / page).as_uri(), width=width)
        window.run('document.querySelectorAll("details").forEach(one => one.open = true)')
        expected = window.run(
            "const all = [...document.querySelectorAll('table')];"
            "const count = names => document.querySelectorAll(names).length;"
            "return {names: all.map(one => one.caption.innerText.replace(/\\s+/g, ' ').trim()).sort(),"
            " rows: count('tr'), columns: count('th[scope=col]'), headings: count('tbody th[scope=row]')}"
        )
        tree = window.devtools("Accessibility.getFullAXTree")["nodes"]
        roles = [_role(node) for node in tree]
        names = sorted(" ".join(node["name"]["value"].split()) for node in tree if _role(node) == "table")
        assert {
            "names": names,
            "rows": roles.count("row"),
            "columns": roles.count("columnheader"),
            "headings": roles.count("rowheader"),
        } == expected
        assert len(names) >= 1
        assert [roles.count(one) for one in ("banner", "main", "contentinfo")] == [1, 1, 1]


def _role(node: dict[str, Any]) -> str:
    return "" if node["ignored"] else str(node["role"]["value"])


def test_the_keyboard_is_enough(site: Path, window: Browser) -> None:
    window.open((site / "results-14.html").as_uri())
    reached = []
    for _ in range(12):
        window.press("\ue004")  # Tab
        reached.append(window.run("return [document.activeElement.tagName, document.activeElement.textContent.trim()]"))
        assert window.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached == [
        ["A", "TLS reports"], ["A", "Sources"], ["A", "Results"], ["A", "Reports"],
        ["A", "2 days"], ["A", "14 days"], ["A", "90 days"], ["SUMMARY", "The numbers by day"],
        ["SUMMARY", "Failures by MX host and source: certificate-expired"],
        ["SUMMARY", "Failures by MX host and source: validation-failure"],
        ["SUMMARY", "Failures by MX host and source: sts-policy-fetch-error"],
        ["A", "reports"],
    ]  # fmt: skip
    window.press("\ue008", "\ue004")  # Shift and Tab.
    window.press(" ")
    assert window.run("return document.activeElement.parentElement.open") is True


def test_a_web_server_is_asked_for_the_pages_and_nothing_else(site: Path, window: Browser, tmp_path: Path) -> None:
    window.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    with web_server(site) as (url, asked):
        window.open(f"{url}/")
        window.run("document.querySelector('.windows a:last-child').click()")
        wait_until(lambda: window.run("return location.pathname + document.readyState") == "/sources-90.htmlcomplete")
        window.open(f"{url}/report-{FAILED.key}.html")
        window.run("document.querySelector('a[download]').click()")
        file = tmp_path / f"report-{FAILED.key}.json"
        wait_until(file.exists)
        assert window.console() == []
    assert file.read_bytes() == (site / file.name).read_bytes()
    assert json.loads(file.read_text())["organization"] == FAILED.report.organization
    assert asked == ["/", "/sources-90.html", f"/report-{FAILED.key}.html", f"/{file.name}"]


@contextmanager
def web_server(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine, and the paths that it has been asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - that is its name
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_pictures_in_the_documentation_are_of_both_widths() -> None:
    sizes = {path.name: struct.unpack(">II", path.read_bytes()[16:24])[0] for path in IMAGES.glob("reports-*.png")}
    assert sizes == {
        "reports-sources-wide.png": 1400,
        "reports-sources-narrow.png": 360,
        "reports-results-wide.png": 1400,
        "reports-results-narrow.png": 360,
    }
