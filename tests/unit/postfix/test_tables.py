"""The tables of smtp_tls_policy_maps, as Postfix takes such a list apart."""

import pytest

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint
from postfix_mtasts.postfix.tables import Table, tables

ASK = "socketmap:inet:127.0.0.1:8461:postfix"
OURS = Table(ASK, proxied=False, kind="socketmap", name="inet:127.0.0.1:8461:postfix")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("", (), id="nothing"),
        pytest.param(" , ,\t", (), id="separators"),
        pytest.param(ASK, (OURS,), id="one"),
        pytest.param(f"hash:/a,{ASK}", (Table("hash:/a", False, "hash", "/a"), OURS), id="comma"),
        pytest.param(f"hash:/a {ASK}", (Table("hash:/a", False, "hash", "/a"), OURS), id="space"),
        pytest.param(f"hash:/a ,\t\n {ASK}", (Table("hash:/a", False, "hash", "/a"), OURS), id="all of them"),
        pytest.param(
            f"inline:{{ {{a = b, c}}, d=e }} {ASK}",
            (Table("inline:{ {a = b, c}, d=e }", False, "inline", "{ {a = b, c}, d=e }"), OURS),
            id="braces",
        ),
        pytest.param(
            f"proxy:{ASK}", (Table(f"proxy:{ASK}", True, "socketmap", "inet:127.0.0.1:8461:postfix"),), id="proxy"
        ),
        pytest.param(
            f"pipemap:{{{ASK}, static:a}}", (OURS, Table("static:a", False, "static", "a")), id="tables inside of one"
        ),
    ],
)
def test_tables(value: str, expected: tuple[Table, ...]) -> None:
    assert tables(value) == expected


@pytest.mark.parametrize(
    ("text", "endpoint", "name"),
    [
        ("socketmap:inet:127.0.0.1:8461:postfix", InetEndpoint("127.0.0.1", 8461), "postfix"),
        ("socketmap:inet:[::1]:8461:postfix", InetEndpoint("::1", 8461), "postfix"),
        ("socketmap:inet:localhost:smtp:tlsrpt", InetEndpoint("localhost", 25), "tlsrpt"),
        ("socketmap:unix:sts/socket:postfix", UnixEndpoint("sts/socket"), "postfix"),
        ("proxy:socketmap:unix:/run/sts:plain", UnixEndpoint("/run/sts"), "plain"),
        ("socketmap:inet:localhost:no-such-service:postfix", None, "postfix"),
        pytest.param("socketmap:inet:localhost:a\0b:postfix", None, "postfix", id="NUL in the port"),
        pytest.param(f"socketmap:inet:localhost:{'1' * 5000}:postfix", None, "postfix", id="5000 digits"),
        ("socketmap:tcp:localhost:25:postfix", None, "postfix"),
        ("socketmap:postfix", None, "postfix"),
        ("tcp:inet:localhost:25", None, "25"),
    ],
)
def test_whom_a_socketmap_asks(text: str, endpoint: Endpoint | None, name: str) -> None:
    (table,) = tables(text)
    assert (table.endpoint, table.map_name) == (endpoint, name)
