"""A mail of ours as text (RFC 5322). What is in it is ASCII, since `plain` has escaped what others wrote."""

import datetime
import email.policy
import email.utils
from collections.abc import Sequence
from email.message import EmailMessage

from postfix_mtasts.reports.plain import plain
from postfix_mtasts.reports.voice import PROGRAM

_MAX_SUBJECT = 120  # Characters.
# A list of recipients is folded, and never the subject, of which the library leaves nothing in the first line.
_POLICY = email.policy.default.clone(linesep="\n", max_line_length=200)


def letter(
    sender: str, recipients: Sequence[str], subject: str, lines: Sequence[str], now: datetime.datetime, token: str
) -> bytes:
    """The mail. `sender` is an address with a domain; `token` makes its Message-ID one of its own."""
    message = EmailMessage(policy=_POLICY)
    message["From"] = f"{PROGRAM} <{sender}>"
    message["To"] = ", ".join(recipients)
    shown = plain(subject)
    message["Subject"] = shown if len(shown) <= _MAX_SUBJECT else f"{shown[: _MAX_SUBJECT - 3]}..."
    message["Date"] = email.utils.format_datetime(now)
    message["Message-ID"] = f"<{token}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answer is wanted.
    message.set_content("\n".join(map(plain, lines)) + "\n", charset="us-ascii", cte="7bit")
    return message.as_bytes()
