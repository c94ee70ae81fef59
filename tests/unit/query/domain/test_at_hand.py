"""What a probe takes from main.cf. The script stands for postconf(1) of several versions."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint
from postfix_mtasts.postfix.installation import Client
from postfix_mtasts.postfix.tables import tables
from postfix_mtasts.query.domain.at_hand import AtHand, at_hand

MAPS = (
    "inline:{a=b}, proxy:socketmap:inet:127.0.0.1:8461:tlsrpt socketmap:unix:/run/x:postfix, socketmap:inet:[::1]:1:p"
)

HELO = "smtp_helo_name = mail.example.com"
CAS = "smtp_tls_CAfile = /ca.pem\nsmtp_tls_CApath = /cas"


def install(folder: Path, text: str) -> str:
    """A folder with a postconf that prints this."""
    script = folder / "postconf"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    script.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (
            f"{HELO}\n{CAS}\nsmtp_tls_policy_maps = {MAPS}\nsmtp_tls_enforce_sts_mx_patterns = yes",
            AtHand(Client("mail.example.com", "/ca.pem", "/cas", checks_patterns=True), tables(MAPS)),
        ),
        (f"{HELO}\nsmtp_tls_CAfile =", AtHand(Client("mail.example.com", checks_patterns=False))),
    ],
)
async def test_main_cf(printed: str, expected: AtHand, tmp_path: Path) -> None:
    path = install(tmp_path, printed)
    assert await at_hand(path) == replace(expected, path=path)


async def test_no_postfix(tmp_path: Path) -> None:
    assert await at_hand(str(tmp_path)) == AtHand(Client(socket.gethostname()), path=str(tmp_path))


@pytest.mark.parametrize(
    ("maps", "served", "expected"),
    [
        (MAPS, InetEndpoint("127.0.0.1", 8461), (InetEndpoint("127.0.0.1", 8461), "tlsrpt")),
        (MAPS, InetEndpoint("127.0.0.1", 8462), None),
        (
            "socketmap:inet:localhost:8462:plain",
            InetEndpoint("127.0.0.1", 8462),
            (InetEndpoint("localhost", 8462), "plain"),
        ),
        (
            "socketmap:unix:mtasts/socket:postfix",
            UnixEndpoint("/queue/mtasts/socket"),
            (UnixEndpoint("/queue/mtasts/socket"), "postfix"),
        ),
        (
            "socketmap:unix:/mtasts/socket:postfix",
            UnixEndpoint("/queue/mtasts/socket"),
            (UnixEndpoint("/queue/mtasts/socket"), "postfix"),
        ),
        ("", UnixEndpoint("/queue/mtasts/socket"), None),
    ],
)
def test_where_postfix_asks(maps: str, served: Endpoint, expected: object) -> None:
    assert AtHand(Client("x"), tables(maps), queue=Path("/queue")).asks([served]) == expected
