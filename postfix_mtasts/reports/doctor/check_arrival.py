"""Whether a mail to the address that reports go to arrives here: one is sent there, looked for, and deleted again."""

import asyncio
import contextlib
import datetime
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from postfix_mtasts.postfix.installation import PATH
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.reports.letter import letter
from postfix_mtasts.reports.records import remove
from postfix_mtasts.reports.sendmail import SendmailError, own_address, send
from postfix_mtasts.reports.spool import Spool, received
from postfix_mtasts.reports.store import Store, StoreError

WAIT = 30.0  # Seconds for a mail to arrive.
_PAUSE = 0.5  # Seconds between two looks.
_MAX_LOOKED_AT = 1000  # Mails that come meanwhile, of each look.
_WORDS = (
    "postfix-mtasts-reports doctor has sent this mail to see whether reports",
    "arrive. It deletes the mail when it has found it.",
)


async def check_arrival(address: str, spool: Spool, database: Path, *, wait: float, path: str = PATH) -> Finding:
    """Send a mail to an address, and see whether it arrives in the spool and is taken in. Raises OSError."""
    token = secrets.token_hex(16)
    now = datetime.datetime.now(datetime.UTC)
    sender, started = own_address(), time.monotonic()
    try:
        mail = letter(sender, (address,), "postfix-mtasts-reports doctor: a test", _WORDS, now, token)
        send(mail, sender, (address,), path)
    except SendmailError as error:
        return Finding(
            "arrival", Status.ERROR, f"no mail can be sent to {address}: {error}", "it is unknown if reports arrive"
        )
    seen: set[str] = set()
    name = await _found(spool, token, int(now.timestamp()), seen, started + wait)
    if not name:
        what = f"a mail to {address} did not arrive here within {wait:g} s"
        return Finding("arrival", Status.ERROR, what, "reports do not arrive either", "run", "postqueue -p")
    after = time.monotonic() - started
    if not await _taken_in(database, name, started + wait):
        what = f"a mail to {address} arrives here, and is not taken in: it stays in new"
        return Finding("arrival", Status.ERROR, what, "the log says why", "run", "postfix-mtasts-reports replay")
    _remove(database, spool, name)
    return Finding("arrival", Status.OK, f"a mail to {address} arrives here", f"it took {after:.1f} s")


async def _found(spool: Spool, token: str, since: int, seen: set[str], deadline: float) -> str | None:
    """The name of the mail with a token, as soon as there is one."""
    while True:
        fresh: Sequence[str] = [one for one in spool.all() if received(one) >= since - 1 and one not in seen]
        for name in fresh[:_MAX_LOOKED_AT]:
            seen.add(name)
            with contextlib.suppress(FileNotFoundError):  # It has just been moved, and is found in the next look.
                if token.encode() in spool.read(name):
                    return name
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_PAUSE)


async def _taken_in(database: Path, name: str, deadline: float) -> bool:
    """Whether what receives the mail has written it into the database."""
    while True:
        with contextlib.suppress(StoreError), Store(database) as store:  # It may not have been made yet.
            store.open_to_read()
            if store.one("SELECT 1 FROM messages WHERE name = ?", (name,)):
                return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_PAUSE)


def _remove(database: Path, spool: Spool, name: str) -> None:
    with Store(database) as store:
        store.open()
        with store.transaction():
            remove(store, name)
    spool.remove(name)
