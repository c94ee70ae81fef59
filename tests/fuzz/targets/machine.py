"""What this machine's files and commands say: resolv.conf, lists of tables, and the output of postconf(1).

NoPostfix is declared, for a version that is none.
"""

import contextlib
import ipaddress
from collections.abc import Iterator

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.resolver import _hosts
from postfix_mtasts.postfix.installation import NoPostfix, _parse
from postfix_mtasts.postfix.tables import tables
from postfix_mtasts.query.doctor.installed import _clients, _settings


def seeds() -> Iterator[bytes]:
    yield b"# made by hand\nsearch a.example\nnameserver 192.0.2.1\nnameserver 2001:db8::1 # 2\noptions trust-ad\n"
    yield b"nameserver fe80::1%eth0\nnameserver\t192.0.2.256\r\nnameserver 01.2.3.4"
    yield b"hash:/etc/postfix/tls, socketmap:inet:127.0.0.1:8461:postfix proxy:socketmap:unix:/run/x:QUERY"
    yield b"pipemap:{hash:/a, unionmap:{socketmap:inet:[::1]:smtp:x, inline:{a=b}}}, texthash:/b"
    yield b"socketmap:inet:127.0.0.1:\xd9\xa1\xd9\xa2:postfix"
    yield b"smtp/unix/command = smtp -o x=y\nsmtp/unix/chroot = -\nrelay/unix/command = smtp\ncompatibility_level = 3.6"
    yield b"smtp/unix/smtp_tls_policy_maps = hash:/x\nsmtp/unix/command = smtp\nmail_version = 3.10.5"
    yield b"{" * 60000
    yield b"unionmap:{" * 6000
    yield b"pipemap:{a,b}," * 4000
    yield b"nameserver 192.0.2.1\n" * 3000
    yield b"smtp/unix/command = smtp\n" * 2500


def run(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for host in _hosts(text):
        ipaddress.ip_address(host)
    for table in tables(text):
        assert (table.kind, table.name.partition(":")[0]) != ("pipemap", "unionmap")
        endpoint = table.endpoint
        assert endpoint is None or table.kind == "socketmap"
        if isinstance(endpoint, InetEndpoint):
            assert str(endpoint)
    settings = _settings(text)
    assert all("=" not in name for name in settings)
    for client in _clients(settings, settings, settings):
        assert client.level == client.level.lower()
        assert str(client)
    with contextlib.suppress(NoPostfix):
        assert all(0 <= number <= 9999 for number in _parse(text))
