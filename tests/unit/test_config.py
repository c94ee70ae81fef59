import dataclasses
import datetime
import ipaddress
import pathlib
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.config import (
    Cache,
    Config,
    ConfigError,
    DaneSetting,
    Discovery,
    Dns,
    Endpoint,
    ExceptionSetting,
    Fetch,
    Fleet,
    FleetUrl,
    InetEndpoint,
    Level,
    Metrics,
    OnFailure,
    OnTesting,
    ProxyUrl,
    Publish,
    PublishDns,
    Reply,
    Reports,
    Server,
    StyleSetting,
    UnixEndpoint,
    Web,
    parse,
)
from tests.unit.strategies import near, toml_texts
from tests.unit.vectors import DATA

WRONG = sorted((DATA / "config").glob("*.toml"))
DEFAULTS = Config(
    server=Server(
        listen=(InetEndpoint("127.0.0.1", 8461),),
        socket_mode=0o666,
        control="/run/postfix-mtasts/control",
        control_group="",
        answer_within=10.0,
    ),
    cache=Cache(
        path="/var/lib/postfix-mtasts/policies.sqlite",
        policies_in_memory=10_000,
        no_policies_in_memory=100_000,
        memory=268_435_456,
    ),
    dns=Dns(nameservers=(), timeout=5.0),
    fetch=Fetch(timeout=60.0, ca_file="", allow_addresses=(), proxy=None, proxy_credentials=""),
    reply=Reply(style=StyleSetting.AUTO, dane=DaneSetting.AUTO, testing=OnTesting.IGNORE, enforce=True),
    discovery=Discovery(on_failure=OnFailure.NOTFOUND),
    metrics=Metrics(listen=None),
    exception=(),
    fleet=Fleet(url=None, sentinels=(), name="", credentials="", ca_file="", prefix="mtasts:"),
    reports=Reports(path="/var/lib/postfix-mtasts-reports/reports.sqlite", domains=(), keep_mails=30, keep_facts=400),
    publish=Publish(
        path="/var/lib/postfix-mtasts-publish/publish.sqlite",
        policies="/var/lib/postfix-mtasts-publish/policies",
        zone="",
        addresses=(),
        reports=(),
        ask=InetEndpoint("127.0.0.1", 8462),
        ca="",
        auto=False,
        dns=PublishDns(server=None, zone="", key=""),
    ),
    web=Web(
        listen=None,
        beyond_loopback=False,
        group="postfix-mtasts",
        hosts=("localhost", "127.0.0.1", "::1"),
        token_file="",
        user_header="",
    ),
)


def _keys(table: Any) -> set[str]:
    """TABLE.KEY, and TABLE.TABLE.KEY for a table within a table."""
    found = set[str]()
    for field in dataclasses.fields(table):
        value = getattr(table, field.name, None)
        each = field.metadata.get("each")  # Of a table that there may be many of.
        is_table = each or (dataclasses.is_dataclass(value) and not field.metadata)
        found |= {f"{field.name}.{key}" for key in _keys(each or value)} if is_table else {field.name}
    return found


def _written(tables: dict[str, Any]) -> set[str]:
    """The same of a file."""
    found = set()
    for name, value in tables.items():
        listed = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for one in listed:
            found |= {f"{name}.{key}" for key in _written(one)} if isinstance(one, dict) else {name}
    return found


KEYS = _keys(DEFAULTS)
EVERY_KEY = b"""
[server]
listen = ["inet:192.0.2.1:1", "inet:[2001:DB8:0::1]:65535", "unix:/run/postfix mtasts/s\xc3\xb6cket"]
socket_mode = 0o660
control = "/srv/control"
control_group = "monitoring"
answer_within = 7.5
[cache]
path = "/srv/cache.sqlite"
policies_in_memory = 2000
no_policies_in_memory = 3000
memory = 16777216
[dns]
nameservers = ["192.0.2.53", "198.51.100.53:5353", "2001:db8::53", "[2001:db8::54]", "[2001:db8::55]:5353"]
timeout = 90
[fetch]
timeout = 0.1
ca_file = "/etc/ssl/ca.pem"
allow_addresses = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]
proxy = "socks5://[2001:DB8:0::1]:1080"
proxy_credentials = "/etc/proxy"
[reply]
style = "tlsrpt"
dane = "dane-only"
testing = "report"
enforce = false
[discovery]
on_failure = "temp"
[metrics]
listen = "inet:[2001:db8::1]:9461"
[[exception]]
domain = "*.Xn--Bcher-Kva.Example"
until = 2026-12-31
reason = " their certificate is to be renewed, ticket \xe2\x84\x964711 "
level = "encrypt"
dane = true
[[exception]]
domain = "xn--bcher-kva.example"
until = 0001-01-01
reason = "-"
[fleet]
url = "rediss://mtasts:p%40ss@cache.example:6380/2"
sentinels = ["a.example", "[2001:db8::1]:1", "rediss://b.example:2"]
name = "mymaster"
credentials = "/etc/fleet"
ca_file = "/etc/ssl/fleet.pem"
prefix = "sts:"
[reports]
path = "/srv/reports.sqlite"
domains = ["example.com", "Xn--Bcher-Kva.Example"]
keep_mails = 1
keep_facts = 4000
alert_to = ["postmaster@example.com"]
[publish]
path = "/srv/publish.sqlite"
policies = "/srv/policies"
zone = "Sts.Example.Net"
addresses = ["192.0.2.1", "2001:DB8:0::1"]
reports = ["mailto:tlsrpt@example.net", "https://example.net/tlsrpt?a=%2C"]
ask = "unix:/run/publish/ask"
ca = "letsencrypt.org"
auto = true
[publish.dns]
server = "[2001:db8::53]:5353"
zone = "example.net"
key = "/etc/publish.key"
[web]
listen = "inet:[2001:DB8:0::1]:8463"
beyond_loopback = true
group = "web"
hosts = ["MTA-STS.example.com", "192.0.2.1", "2001:db8::1"]
token_file = "/etc/web.token"
user_header = "X-Remote-User"
"""


def _parsed(data: bytes) -> Config | str:
    try:
        return parse(data, "x.toml")
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in WRONG])
def test_wrong_configuration(path: pathlib.Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(path.read_bytes(), path.name)
    assert f"{caught.value}\n" == path.with_suffix(".error").read_text("utf-8")


def test_every_key_has_a_case_of_wrong_type_and_one_of_wrong_value() -> None:
    cases = {(".".join(key), kind.partition("-")[0]) for *key, kind in _key_cases()}
    assert cases == {(key, kind) for key in KEYS for kind in ("type", "value")}


def _key_cases() -> list[list[str]]:
    """Cases are called TABLE.KEY.type-WHY and TABLE.KEY.value-WHY, or after another rule, without a dot."""
    return [path.stem.split(".") for path in WRONG if "." in path.stem]


def test_every_case_has_its_error() -> None:
    assert [path.stem for path in sorted((DATA / "config").glob("*.error"))] == [path.stem for path in WRONG]


def test_empty_file_gives_the_defaults() -> None:
    assert parse(b"", "x.toml") == DEFAULTS


def test_empty_tables_give_the_defaults() -> None:
    names = ("cache", "dns", "fetch", "reply", "discovery", "reports", "publish", "publish.dns", "web")
    tables = "".join(f"[{name}]\n" for name in names)
    assert parse(f"server = {{}}\n{tables}".encode(), "x.toml") == DEFAULTS


def test_file_with_every_key() -> None:
    tables = tomllib.loads(EVERY_KEY.decode())
    assert _written(tables) == KEYS
    assert parse(EVERY_KEY, "x.toml") == Config(
        server=Server(
            listen=(
                InetEndpoint("192.0.2.1", 1),
                InetEndpoint("2001:db8::1", 65535),
                UnixEndpoint("/run/postfix mtasts/söcket"),
            ),
            socket_mode=0o660,
            control="/srv/control",
            control_group="monitoring",
            answer_within=7.5,
        ),
        cache=Cache(path="/srv/cache.sqlite", policies_in_memory=2000, no_policies_in_memory=3000, memory=2**24),
        dns=Dns(
            nameservers=(
                InetEndpoint("192.0.2.53", 53),
                InetEndpoint("198.51.100.53", 5353),
                InetEndpoint("2001:db8::53", 53),
                InetEndpoint("2001:db8::54", 53),
                InetEndpoint("2001:db8::55", 5353),
            ),
            timeout=90.0,
        ),
        fetch=Fetch(
            timeout=0.1,
            ca_file="/etc/ssl/ca.pem",
            allow_addresses=(
                ipaddress.ip_network("10.0.0.0/8"),
                ipaddress.ip_network("2001:db8::/32"),
                ipaddress.ip_network("192.0.2.1/32"),
            ),
            proxy=ProxyUrl("socks5", "2001:db8::1", 1080),
            proxy_credentials="/etc/proxy",
        ),
        reply=Reply(style=StyleSetting.TLSRPT, dane=DaneSetting.DANE_ONLY, testing=OnTesting.REPORT, enforce=False),
        discovery=Discovery(on_failure=OnFailure.TEMP),
        metrics=Metrics(listen=InetEndpoint("2001:db8::1", 9461)),
        exception=(
            ExceptionSetting(
                domain="*.xn--bcher-kva.example",
                until=datetime.date(2026, 12, 31),
                reason="their certificate is to be renewed, ticket №4711",
                level=Level.ENCRYPT,
                dane=True,
            ),
            ExceptionSetting("xn--bcher-kva.example", datetime.date(1, 1, 1), "-", Level.NONE, dane=False),
        ),
        fleet=Fleet(
            url=FleetUrl("rediss", "cache.example", 6380, database=2, user="mtasts", password="p@ss"),
            sentinels=(
                FleetUrl("rediss", "a.example", 26379),
                FleetUrl("rediss", "2001:db8::1", 1),
                FleetUrl("rediss", "b.example", 2),
            ),
            name="mymaster",
            credentials="/etc/fleet",
            ca_file="/etc/ssl/fleet.pem",
            prefix="sts:",
        ),
        reports=Reports(
            path="/srv/reports.sqlite",
            domains=("example.com", "xn--bcher-kva.example"),
            keep_mails=1,
            keep_facts=4000,
            alert_to=("postmaster@example.com",),
        ),
        publish=Publish(
            path="/srv/publish.sqlite",
            policies="/srv/policies",
            zone="sts.example.net",
            addresses=("192.0.2.1", "2001:db8::1"),
            reports=("mailto:tlsrpt@example.net", "https://example.net/tlsrpt?a=%2C"),
            ask=UnixEndpoint("/run/publish/ask"),
            ca="letsencrypt.org",
            auto=True,
            dns=PublishDns(server=InetEndpoint("2001:db8::53", 5353), zone="example.net", key="/etc/publish.key"),
        ),
        web=Web(
            listen=InetEndpoint("2001:db8::1", 8463),
            beyond_loopback=True,
            group="web",
            hosts=("mta-sts.example.com", "192.0.2.1", "2001:db8::1"),
            token_file="/etc/web.token",
            user_header="X-Remote-User",
        ),
    )


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        pytest.param("server.socket_mode = 0", Config(server=Server(socket_mode=0)), id="lowest mode"),
        pytest.param("server.socket_mode = 0o777", Config(server=Server(socket_mode=0o777)), id="highest mode"),
        pytest.param('server.control = ""', Config(server=Server(control="")), id="no control socket"),
        pytest.param(
            f'server.control = "/{"c" * 106}"',
            Config(server=Server(control="/" + "c" * 106)),
            id="control socket path of 107 octets",
        ),
        pytest.param("dns.timeout = 0.1", Config(dns=Dns(timeout=0.1)), id="shortest time"),
        pytest.param("server.answer_within = 90.0", Config(server=Server(answer_within=90.0)), id="longest time"),
        pytest.param(
            "cache.policies_in_memory = 1000", Config(cache=Cache(policies_in_memory=1000)), id="fewest policies"
        ),
        pytest.param(
            "cache.policies_in_memory = 10_000_000",
            Config(cache=Cache(policies_in_memory=10_000_000)),
            id="most policies",
        ),
        pytest.param(
            "cache.no_policies_in_memory = 1000",
            Config(cache=Cache(no_policies_in_memory=1000)),
            id="fewest domains without",
        ),
        pytest.param(
            "cache.no_policies_in_memory = 0x989680",
            Config(cache=Cache(no_policies_in_memory=10_000_000)),
            id="most domains without",
        ),
        pytest.param('fetch.ca_file = ""', Config(fetch=Fetch(ca_file="")), id="CAs of the system"),
        pytest.param("dns.nameservers = []", Config(dns=Dns(nameservers=())), id="nameservers of resolv.conf"),
        pytest.param('reply.style = "plain"', Config(reply=Reply(style=StyleSetting.PLAIN)), id="style plain"),
        pytest.param('reply.style = "auto"', DEFAULTS, id="style auto"),
        pytest.param('discovery.on_failure = "notfound"', DEFAULTS, id="on_failure notfound"),
        pytest.param(
            f'server.listen = ["unix:/{"x" * 106}"]',
            Config(server=Server(listen=(UnixEndpoint("/" + "x" * 106),))),
            id="socket path of 107 octets",
        ),
        pytest.param("\r\n# only\r\n", DEFAULTS, id="comment and CRLF"),
    ],
)
def test_accepted(toml: str, expected: Config) -> None:
    assert parse(toml.encode(), "x.toml") == expected


def test_socket_path_is_measured_in_octets() -> None:
    with pytest.raises(ConfigError, match=r"^x\.toml: server\.listen = "):
        parse(f'server.listen = ["unix:/{"ü" * 54}"]'.encode(), "x.toml")


@pytest.mark.parametrize(
    "toml",
    [
        pytest.param("dns.timeout = " + "1" * 5000, id="int() refuses 5000 digits"),
        pytest.param("dns.timeout = 0x" + "f" * 5000, id="str() refuses an int of 5000 digits"),
        pytest.param("server.listen = " + "[" * 100_000, id="deeper than the stack"),
    ],
)
def test_huge_value_is_our_error_too(toml: str) -> None:
    with pytest.raises(ConfigError):
        parse(toml.encode(), "x.toml")


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        pytest.param(InetEndpoint("127.0.0.1", 8461), "inet:127.0.0.1:8461", id="IPv4"),
        pytest.param(InetEndpoint("::1", 8461), "inet:[::1]:8461", id="IPv6"),
        pytest.param(InetEndpoint("fe80::1%eth0.1", 53), "inet:[fe80::1%eth0.1]:53", id="IPv6 with a zone"),
        pytest.param(UnixEndpoint("/run/sts"), "unix:/run/sts", id="Unix"),
    ],
)
def test_endpoint_as_text(endpoint: Endpoint, text: str) -> None:
    assert str(endpoint) == text


_addresses = st.ip_addresses().map(str)


@given(st.builds(InetEndpoint, _addresses, st.integers(1, 65535)))
def test_printed_endpoint_parses(endpoint: Endpoint) -> None:
    config = parse(f'server.listen = ["{endpoint}"]'.encode(), "x.toml")
    assert config.server.listen == (endpoint,)


_TOKENS = (
    "[server]",
    "[",
    "]",
    "listen",
    "timeout",
    "=",
    ".",
    '"',
    "'''",
    "nan",
    "true",
    "1e9",
    "{",
    "}",
    ",",
    "\n",
    "#",
)


@given(st.binary() | near(*_TOKENS).map(str.encode) | toml_texts.map(str.encode))
def test_any_octets_give_a_configuration_or_our_error(data: bytes) -> None:
    match _parsed(data):
        case Config() as config:
            times = (config.server.answer_within, config.dns.timeout, config.fetch.timeout)
            assert all(0.1 <= time <= 90 for time in times)
            bounds = (config.cache.policies_in_memory, config.cache.no_policies_in_memory)
            assert all(type(bound) is int and 1000 <= bound <= 10_000_000 for bound in bounds)
            assert config.server.listen
        case message:
            assert message.startswith("x.toml: ")
            assert message.isprintable()
