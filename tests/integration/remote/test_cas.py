"""Whose certificates of MX hosts are trusted: those that Postfix, with the same settings, would trust."""

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from postfix_mtasts.remote.network import CaError, mail_tls_context
from tests.world.ca import Ca

SETTINGS = [
    ("", "", {"ours"}),
    ("file", "", {"file"}),
    ("", "path", {"path"}),
    ("file", "path", {"file", "path"}),
]


@pytest.mark.parametrize(("file", "path", "trusted"), SETTINGS)
def test_the_cas_of_postfix_are_trusted_and_no_others(file: str, path: str, trusted: set[str], tmp_path: Path) -> None:
    cas = {}
    for name in ("ours", "file", "path"):
        (tmp_path / name).mkdir()
        cas[name] = Ca(tmp_path / name, name)
    hashed = tmp_path / "hashed"
    hashed.mkdir()
    shutil.copy(cas["path"].file, hashed / "ca.pem")
    subprocess.run(["openssl", "rehash", hashed], check=True)
    context = mail_tls_context(
        str(cas["file"].file) if file else "", str(hashed) if path else "", str(cas["ours"].file)
    )
    assert {name for name, ca in cas.items() if is_trusted(context, ca.issue("mx.example.com").server_context())} == (
        trusted
    )


def is_trusted(client: ssl.SSLContext, server: ssl.SSLContext) -> bool:
    """Whether a handshake succeeds. No name is checked."""
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(far, server_side=True) as connection:
                connection.recv(1)
        except (ssl.SSLError, OSError):
            far.close()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        with client.wrap_socket(near):
            return True
    except ssl.SSLCertVerificationError:
        return False
    finally:
        near.close()
        serving.join()


@pytest.mark.parametrize(
    ("file", "path", "reason"),
    [
        ("F/none", "", "smtp_tls_CAfile = F/none: no such file or directory"),
        ("", "F/none", "smtp_tls_CApath = F/none: no such file or directory"),
        ("", "F/file", "smtp_tls_CApath = F/file: not a directory"),
        ("F/file", "F", "smtp_tls_CAfile = F/file: the file has no certificate in PEM format"),
    ],
)
def test_what_cannot_be_read_is_named(file: str, path: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = str(tmp_path)
    with pytest.raises(CaError) as raised:
        mail_tls_context(file.replace("F", place), path.replace("F", place), "")
    assert str(raised.value).replace(place, "F") == reason


def test_where_postfix_has_no_cas_of_its_own_those_of_fetch_are_named(tmp_path: Path) -> None:
    with pytest.raises(CaError, match=f'^fetch.ca_file = "{tmp_path}/none": no such file or directory$'):
        mail_tls_context("", "", f"{tmp_path}/none")
