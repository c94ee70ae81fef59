"""Credentials in a file of their own: what is read, and what is refused in which words."""

from pathlib import Path

import pytest

from postfix_mtasts.config import ConfigError, Fetch, ProxyUrl
from postfix_mtasts.config_file import Proxy, read_proxy

URL = ProxyUrl("http", "proxy.example", 3128)
WORDS = "must be one line, USER:PASSWORD, with at most 255 bytes for each"

GOOD = {
    "a line": (b"me:secret\n", "me", "secret"),
    "without its end": (b"me:secret", "me", "secret"),
    "CRLF": (b"me:secret\r\n", "me", "secret"),
    "a colon in the password": (b"me:se:cret\n", "me", "se:cret"),
    "no password": (b"me:\n", "me", ""),
    "UTF-8": ("ich:geheim ß\n".encode(), "ich", "geheim ß"),
    "the longest": (b"u" * 255 + b":" + b"p" * 255, "u" * 255, "p" * 255),
}
BAD = {
    "empty": b"",
    "no colon": b"me\n",
    "no user": b":secret\n",
    "two lines": b"me:secret\nme:other\n",
    "a long user": b"u" * 256 + b":p",
    "a long password": "ü".encode() * 128 + b":" + "ü".encode() * 128,
    "control characters": b"me:sec\x00ret",
    "Latin-1": b"me:\xfc\n",
    "a whole disk": b"me:" + b"x" * 100_000,
}


def credentials(folder: Path, content: bytes, mode: int = 0o600) -> Fetch:
    file = folder / "credentials"
    file.write_bytes(content)
    file.chmod(mode)
    return Fetch(proxy=URL, proxy_credentials=str(file))


@pytest.mark.parametrize(("content", "user", "password"), GOOD.values(), ids=GOOD)
def test_credentials(tmp_path: Path, content: bytes, user: str, password: str) -> None:
    assert read_proxy(credentials(tmp_path, content)) == Proxy(URL, user, password)


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_wrong_credentials(tmp_path: Path, content: bytes) -> None:
    fetch = credentials(tmp_path, content)
    with pytest.raises(ConfigError) as raised:
        read_proxy(fetch)
    assert str(raised.value) == f'fetch.proxy_credentials = "{fetch.proxy_credentials}": {WORDS}'


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_credentials_that_everybody_may_read_or_write(tmp_path: Path, mode: int) -> None:
    fetch = credentials(tmp_path, b"me:secret\n", mode)
    with pytest.raises(ConfigError) as raised:
        read_proxy(fetch)
    why = f"every user of this machine may read it or write to it; run: chmod o= {fetch.proxy_credentials}"
    assert str(raised.value) == f'fetch.proxy_credentials = "{fetch.proxy_credentials}": {why}'


def test_credentials_for_a_group(tmp_path: Path) -> None:
    assert read_proxy(credentials(tmp_path, b"me:secret\n", 0o640)) == Proxy(URL, "me", "secret")


@pytest.mark.parametrize(("place", "why"), [("none", "there is no such file"), ("", "it is a folder")])
def test_no_file(tmp_path: Path, place: str, why: str) -> None:
    path = tmp_path / place
    with pytest.raises(ConfigError) as raised:
        read_proxy(Fetch(proxy=URL, proxy_credentials=str(path)))
    assert str(raised.value) == f'fetch.proxy_credentials = "{path}": {why}'


def test_no_proxy_needs_no_credentials() -> None:
    assert read_proxy(Fetch(proxy_credentials="/nowhere")) is None
    assert read_proxy(Fetch(proxy=URL)) == Proxy(URL)
