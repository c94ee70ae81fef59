"""What is wrong with this machine whatever Postfix and the daemon do: its clock, and the CAs that the daemon trusts."""

import datetime
import pathlib
from collections.abc import Iterator

import postfix_mtasts
from postfix_mtasts.config import Config
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.remote.network import CaError, tls_context


def check_clock(now: float) -> Iterator[Finding]:
    """Without a time server, only one thing is certain: it is later than when this program was built."""
    earliest = pathlib.Path(postfix_mtasts.__file__).stat().st_mtime
    if now < earliest:
        shown, then = (datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (now, earliest))
        what = f"the clock says {shown:%Y-%m-%d %H:%M} UTC, before this program was built ({then:%Y-%m-%d %H:%M} UTC)"
        why = "certificates look as if they were not valid yet, and policies expire at the wrong time"
        yield Finding("clock", Status.ERROR, what, why, "run", "timedatectl set-ntp true")


def check_ca_file(settings: Config) -> Iterator[Finding]:
    """The CAs by which the daemon verifies policy hosts."""
    try:
        tls_context(settings.fetch.ca_file)
    except CaError as error:
        what = f'fetch.ca_file = "{settings.fetch.ca_file}": {error}'
        yield Finding("config", Status.ERROR, what, "the daemon does not start")
