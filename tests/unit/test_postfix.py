"""What follows from the Postfix on this machine, and from there being none."""

import pytest

from postfix_mtasts.config import InetEndpoint, StyleSetting, UnixEndpoint
from postfix_mtasts.postfix import NoPostfix, Postfix, choose_style
from postfix_mtasts.reply import Style

LOCAL = (InetEndpoint("127.0.0.1", 8461), InetEndpoint("::1", 8461), UnixEndpoint("/run/socket"))
OPEN = InetEndpoint("0.0.0.0", 8461)
KNOWS = "Postfix 3.10 knows its attributes, and checks MX names by them"
KNOWS_NOT = "Postfix 3.9 does not know the attributes of tlsrpt"


@pytest.mark.parametrize(
    ("setting", "found", "listeners", "style", "reason"),
    [
        (StyleSetting.AUTO, Postfix((3, 10)), LOCAL, Style.TLSRPT, KNOWS),
        (StyleSetting.AUTO, Postfix((3, 9)), LOCAL, Style.PLAIN, KNOWS_NOT),
        (StyleSetting.AUTO, Postfix((4, 0)), LOCAL, Style.TLSRPT, KNOWS.replace("3.10", "4.0")),
        (
            StyleSetting.AUTO,
            NoPostfix("no postconf on this machine"),
            LOCAL,
            Style.PLAIN,
            "no postconf on this machine",
        ),
        (
            StyleSetting.AUTO,
            Postfix((3, 10)),
            (*LOCAL, OPEN),
            Style.PLAIN,
            "inet:0.0.0.0:8461 can be reached from other machines, whose Postfix is unknown",
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
