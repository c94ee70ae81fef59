"""A headless Chromium, driven over WebDriver (W3C) by Debian's chromedriver."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.world.postfix import NAMESPACE

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--font-render-hinting=none",
)
_WAIT = 60  # Seconds. The first start on a busy machine takes some.


def missing() -> str | None:
    """What a test with a browser needs and does not have here, in words for `pytest.skip`."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        return "needs Chromium: apt install chromium chromium-driver"
    return None if NAMESPACE in os.environ else "needs a namespace: run through tests/namespace"


class Browser:
    """One window. Each call waits until the browser has done what it is asked."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self._client = client
        self._session = f"/session/{session}"

    def open(self, url: str, *, width: int = 1400, dark: bool = False) -> None:
        """Open a page, in a window as wide as this, in a light or a dark scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        self._resize(width, 900)
        self._post("/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """What a function with this body returns, in the page. The content security policy does not apply to it."""
        return self._post("/execute/sync", {"script": script, "args": arguments})

    def run_async(self, script: str, *arguments: object) -> Any:
        """What a function with this body gives to the last of its arguments, which is a function."""
        return self._post("/execute/async", {"script": script, "args": arguments})

    def press(self, *keys: str) -> None:
        """Press keys together, and let them go. Those without a character have one of WebDriver's."""
        down = [{"type": "keyDown", "value": key} for key in keys]
        up = [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [*down, *up]}]})

    def devtools(self, command: str, **parameters: object) -> Any:
        """Run a command of the DevTools protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def console(self) -> list[str]:
        """What the browser has had to say of pages since it was last asked, such as what a policy has stopped."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """The URLs that were asked for since it was last asked, of all windows and of what pages load."""
        events = [json.loads(entry["message"])["message"] for entry in self._post("/se/log", {"type": "performance"})]
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]

    def picture(self, width: int, height: int) -> bytes:
        """The upper part of the page as PNG."""
        self._resize(width, height)
        taken: str = self.devtools("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"]
        return base64.b64decode(taken)

    def _resize(self, width: int, height: int) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def _post(self, path: str, body: Mapping[str, object]) -> Any:
        answer = self._client.post(self._session + path, json=body).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(answer["message"])
        return answer


@contextmanager
def browser(folder: Path, *flags: str) -> Iterator[Browser]:
    """A browser that has never been used, with its files in a folder."""
    with _driver(folder) as client:
        options = {"args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}", *flags]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        answer = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
        assert "sessionId" in answer, answer
        try:
            window = Browser(client, answer["sessionId"])
            window.open("about:blank")
            window.console(), window.requests()  # Those of the page that a new browser shows.
            yield window
        finally:
            client.delete(f"/session/{answer['sessionId']}")


@contextmanager
def _driver(folder: Path) -> Iterator[httpx.Client]:
    """chromedriver. What it has started ends with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
    }
    command: Sequence[str] = ("chromedriver", f"--port={port}", f"--log-path={folder / 'chromedriver.log'}")
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_WAIT, trust_env=False) as client:
                _wait_until_ready(client)
                yield client
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            if client.get("/status").json()["value"]["ready"]:
                return
        except httpx.TransportError:
            assert time.monotonic() < deadline, "chromedriver does not answer"
        time.sleep(0.05)
