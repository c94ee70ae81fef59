"""`make pictures`: what a browser shows of made reports, for the documentation."""

import sys
import tempfile
from pathlib import Path

from postfix_mtasts.reports.site import write_pages
from postfix_mtasts.reports.views import WINDOWS
from tests.demo_web import shown
from tests.unit.reports.made import NOW, made, views
from tests.world.browser import browser, missing
from tests.world.dashboard import TOKEN

WIDE, NARROW = 1400, 360
# Name, page, width, most pixels of height, and whether it is dark.
PICTURES = (
    ("reports-sources-wide", "index.html", WIDE, 1500, False),
    ("reports-sources-narrow", "index.html", NARROW, 1500, False),
    ("reports-results-wide", "results-14.html", WIDE, 1600, True),
    ("reports-results-narrow", "results-14.html", NARROW, 1500, True),
)


OF_DASHBOARD = (
    ("web-overview-wide", "/", WIDE, 600, False),
    ("web-domain-wide", "/domains/example.com", WIDE, 1500, False),
    ("web-domains-narrow", "/domains", NARROW, 1500, True),
    ("web-sending-wide", "/sending", WIDE, 1300, True),
)


def main(folder: Path) -> None:
    """Take all pictures."""
    if why := missing():
        sys.exit(f"make pictures: {why}")
    with tempfile.TemporaryDirectory() as temporary, shown(Path(temporary)) as demo, browser(Path(temporary)) as window:
        for name, page, width, most, dark in OF_DASHBOARD:
            window.open(demo.url.replace("//", f"//anna:{TOKEN}@") + page, width=width, dark=dark)
            height = window.run("return document.documentElement.scrollHeight")
            (folder / f"{name}.png").write_bytes(window.picture(width, min(height, most)))
    reports = list(made())
    with tempfile.TemporaryDirectory() as temporary, browser(Path(temporary)) as window:
        site = Path(temporary) / "site"
        write_pages(site, {days: views(reports, days) for days in WINDOWS}, reports, NOW)
        for name, page, width, most, dark in PICTURES:
            window.open((site / page).as_uri(), width=width, dark=dark)
            height = window.run("return document.documentElement.scrollHeight")
            (folder / f"{name}.png").write_bytes(window.picture(width, min(height, most)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
