"""`doctor` raises no alarm about configurations that are sound, however different they are.

Postfix's configuration is real, and read by the postconf of each installation; the daemon runs.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from postfix_mtasts.query.doctor.doctor import examine
from postfix_mtasts.query.output import Status
from tests.e2e.test_doctor import MAP, Machine, machine  # noqa: F401 - a fixture

DEBIAN_AMAVIS = """\
smtp-amavis unix - - y - 2 smtp
  -o smtp_data_done_timeout=1200
  -o smtp_send_xforward_command=yes
  -o disable_dns_lookups=yes
  -o max_use=20
  -o smtp_tls_security_level=none"""
SMTPS = "smtps-out unix - - y - - smtp -o smtp_tls_wrappermode=yes -o smtp_tls_security_level=encrypt"
LAN = "lan unix - - y - - smtp -o smtp_tls_security_level=none -o smtp_tls_policy_maps= -o smtp_tls_CAfile="
IPV4 = "smtp4 unix - - y - - smtp -o inet_protocols=ipv4"


@dataclass(frozen=True)
class Sound:
    """Settings of main.cf, lines of master.cf, tables of the daemon's configuration, and files beside all."""

    settings: Mapping[str, str] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    chroot: str = "y"


SOUND = {
    "the usual": Sound(),
    "no chroot": Sound(chroot="n"),
    "encrypt": Sound({"smtp_tls_security_level": "encrypt"}),
    "a relay": Sound({"relayhost": "[relay.example.com]:587", "smtp_tls_security_level": "secure"}),
    "a relay on port 465": Sound(
        {
            "relayhost": "[relay.example.com]:465",
            "smtp_tls_wrappermode": "yes",
            "smtp_tls_security_level": "encrypt",
        }
    ),
    "a relay in the LAN": Sound({"relayhost": "[10.0.0.25]", "smtp_tls_security_level": "none"}),
    "a default transport": Sound(
        {"default_transport": "smtp:[relay.example.com]", "smtp_tls_security_level": "verify"}
    ),
    "relays by sender": Sound(
        {"sender_dependent_relayhost_maps": "texthash:F/senders"},
        files={"senders": "@one.example [relay.one.example]:587\n@two.example [relay.two.example]\n"},
    ),
    "amavis": Sound({"content_filter": "smtp-amavis:[127.0.0.1]:10024"}, (DEBIAN_AMAVIS,)),
    "a transport to the LAN": Sound(
        {"transport_maps": "texthash:F/transport"},
        (LAN,),
        {"transport": "intern.example lan:[10.0.0.7]\n.intern.example lan:[10.0.0.7]:2525\n"},
    ),
    "a transport over smtps": Sound(
        {"transport_maps": "texthash:F/transport"},
        (SMTPS,),
        {"transport": "partner.example smtps-out:[mx.partner.example]:465\n"},
    ),
    "a transport for partners": Sound(
        {"transport_maps": "texthash:F/transport"},
        ("strict unix - - y - - smtp -o smtp_tls_security_level=secure",),
        {"transport": "partner.example strict:\n"},
    ),
    "a transport of IPv4": Sound(
        {"transport_maps": "texthash:F/transport"}, (IPV4,), {"transport": "old.example smtp4:\n"}
    ),
    "a transport by pattern": Sound(
        {"transport_maps": "regexp:F/patterns"},
        files={"patterns": "# ours\n/^(.*)@lists\\.example$/ lmtp:[127.0.0.1]:8024\nif /x/\n/./ smtp:\nendif\n"},
    ),
    "exceptions": Sound(
        {"smtp_tls_policy_maps": f"texthash:F/exceptions, {MAP}"},
        files={"exceptions": "broken.example may\nbank.example secure match=mx.bank.example ciphers=high\n.lan none\n"},
    ),
    "exceptions by pattern": Sound(
        {"smtp_tls_policy_maps": f"regexp:F/patterns, {MAP}"},
        files={"patterns": "/^(mail\\.)?broken\\.example$/ may\n!/\\./ none\n"},
    ),
    "a table behind": Sound({"smtp_tls_policy_maps": f"{MAP}, static:encrypt"}),
    "DANE by hand off": Sound({"smtp_tls_security_level": "may", "smtp_dns_support_level": "dnssec"}),
    "strict protocols": Sound(
        {
            "smtp_tls_mandatory_protocols": "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1",
            "smtp_tls_mandatory_ciphers": "high",
            "smtp_tls_mandatory_exclude_ciphers": "aNULL, MD5, RC4, 3DES, kRSA",
            "smtp_tls_exclude_ciphers": "EXP, LOW, eNULL, aNULL, DES",
        }
    ),
    "only forward secrecy": Sound({"smtp_tls_exclude_ciphers": "kRSA, kDHE, DSS"}),
    "words of EHLO": Sound({"smtp_discard_ehlo_keywords": "chunking, dsn, silent-discard"}),
    "hosts by libc too": Sound({"smtp_host_lookup": "dns, native"}),
    "a Unix socket": Sound({"smtp_tls_policy_maps": "socketmap:unix:sts/socket:postfix"}),
    "through proxymap": Sound({"smtp_tls_policy_maps": "proxy:socketmap:unix:F/run/socket:postfix"}),
    "the service for bulk mail": Sound(
        {"sender_dependent_default_transport_maps": "inline:{@news.example=bulk:}"},
        ("bulk unix - - y - 5 smtp -o smtp_bind_address=127.0.0.1 -o syslog_name=postfix/bulk",),
    ),
    "a catch-all that refuses": Sound(
        {"transport_maps": "texthash:F/transport"},
        files={"transport": "partner.example :\n* error:5.7.1 not from here\n"},
    ),
    "connections that are used again": Sound(
        {"smtp_tls_connection_reuse": "yes"}, ("tlsproxy unix - - y - 0 tlsproxy",)
    ),
    "mail to the inside": Sound(
        {"relay_domains": "inside.example", "relay_transport": "relay:[10.0.0.8]", "virtual_transport": "lmtp:unix:x"}
    ),
}


@pytest.fixture
def right(machine: Machine) -> Machine:  # noqa: F811
    machine.put_right()
    return machine


@pytest.mark.parametrize("name", SOUND)
def test_no_alarm(right: Machine, name: str) -> None:
    case = SOUND[name]
    for file, text in case.files.items():
        (right.folder / file).write_text(text)
    config = right.configure(case.settings, {}, case.services, case.chroot)
    found = asyncio.run(examine(str(config), time.time(), str(right.folder / "bin")))
    assert [finding for finding in found.findings if finding.status is not Status.OK] == []
