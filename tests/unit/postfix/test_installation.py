"""What follows from the Postfix on this machine, and from there being none."""

import pytest

from postfix_mtasts.config import DaneSetting, InetEndpoint, StyleSetting, UnixEndpoint
from postfix_mtasts.postfix.installation import NoPostfix, Postfix, choose_dane, choose_style
from postfix_mtasts.postfix.reply import Style

LOCAL = (InetEndpoint("127.0.0.1", 8461), InetEndpoint("::1", 8461), UnixEndpoint("/run/socket"))
OPEN = InetEndpoint("0.0.0.0", 8461)
KNOWS = "Postfix 3.10 supports its attributes, and checks MX names with them"
KNOWS_NOT = "Postfix 3.9 does not support the attributes of tlsrpt"


@pytest.mark.parametrize(
    ("setting", "found", "listeners", "style", "reason"),
    [
        (StyleSetting.AUTO, Postfix((3, 10)), LOCAL, Style.TLSRPT, KNOWS),
        (StyleSetting.AUTO, Postfix((3, 9)), LOCAL, Style.PLAIN, KNOWS_NOT),
        (StyleSetting.AUTO, Postfix((4, 0)), LOCAL, Style.TLSRPT, KNOWS.replace("3.10", "4.0")),
        (
            StyleSetting.AUTO,
            NoPostfix("there is no postconf command on this machine"),
            LOCAL,
            Style.PLAIN,
            "there is no postconf command on this machine",
        ),
        (
            StyleSetting.AUTO,
            Postfix((3, 10)),
            (*LOCAL, OPEN),
            Style.PLAIN,
            "other machines can connect to inet:0.0.0.0:8461, and their Postfix is unknown",
        ),
        (StyleSetting.TLSRPT, NoPostfix("none"), (OPEN,), Style.TLSRPT, "configured"),
        (StyleSetting.PLAIN, Postfix((3, 11)), LOCAL, Style.PLAIN, "configured"),
    ],
)
def test_style(
    setting: StyleSetting,
    found: Postfix | NoPostfix,
    listeners: tuple[InetEndpoint | UnixEndpoint, ...],
    style: Style,
    reason: str,
) -> None:
    assert choose_style(setting, found, listeners) == (style, reason)


@pytest.mark.parametrize(
    ("found", "listeners", "dane", "reason"),
    [
        (
            Postfix((3, 7), "dane", "dnssec"),
            LOCAL,
            DaneSetting.YIELD,
            "Postfix 3.7 has smtp_tls_security_level = dane",
        ),
        (
            Postfix((3, 10), "dane-only", "dnssec"),
            LOCAL,
            DaneSetting.YIELD,
            "Postfix 3.10 has smtp_tls_security_level = dane-only",
        ),
        (
            Postfix((3, 10), "dane", "enabled"),
            LOCAL,
            DaneSetting.OFF,
            "Postfix 3.10 does not apply DANE without smtp_dns_support_level = dnssec",
        ),
        (
            Postfix((3, 10), "dane", ""),
            LOCAL,
            DaneSetting.OFF,
            "Postfix 3.10 does not apply DANE without smtp_dns_support_level = dnssec",
        ),
        (Postfix((3, 7), "may", "dnssec"), LOCAL, DaneSetting.OFF, "Postfix 3.7 has smtp_tls_security_level = may"),
        (Postfix((3, 7), "", ""), LOCAL, DaneSetting.OFF, "Postfix 3.7 has smtp_tls_security_level = (empty)"),
        (
            NoPostfix("there is no postconf command on this machine"),
            LOCAL,
            DaneSetting.OFF,
            "there is no postconf command on this machine",
        ),
        (
            Postfix((3, 10), "dane", "dnssec"),
            (*LOCAL, OPEN),
            DaneSetting.OFF,
            "other machines can connect to inet:0.0.0.0:8461, and their Postfix is unknown",
        ),
    ],
)
def test_dane(
    found: Postfix | NoPostfix, listeners: tuple[InetEndpoint | UnixEndpoint, ...], dane: DaneSetting, reason: str
) -> None:
    assert choose_dane(DaneSetting.AUTO, found, listeners) == (dane, reason)


@pytest.mark.parametrize("setting", [DaneSetting.YIELD, DaneSetting.DANE_ONLY, DaneSetting.OFF])
def test_a_configured_dane_holds_whatever_postfix_there_is(setting: DaneSetting) -> None:
    for found in (NoPostfix("none"), Postfix((3, 10), "dane", "dnssec"), Postfix((3, 10), "may", "")):
        assert choose_dane(setting, found, (OPEN,)) == (setting, "configured")
