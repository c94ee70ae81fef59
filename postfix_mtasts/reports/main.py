"""The entry of postfix-mtasts-reports. `receive` begins here with as little of the program as it needs.

Postfix bounces a mail for most exit statuses, also for the one with which Python ends at an error. So `receive` has no
other but 0 and 75 (EX_TEMPFAIL), whatever is wrong with its arguments, or with what is installed.
"""

import os
import signal
import sys


def main() -> None:
    """Run the command."""
    sys.exit(_receive(sys.argv[2:]) if sys.argv[1:2] == ["receive"] else _run(sys.argv[1:]))


def _receive(words: list[str]) -> int:
    try:
        from postfix_mtasts.reports.receive import run

        return run(words)
    except Exception as error:  # noqa: BLE001 - see above
        print(f"the mail could not be saved: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return os.EX_TEMPFAIL


def _run(words: list[str]) -> int:
    interrupted = signal.getsignal(signal.SIGINT)  # A shell without job control ignores it for background processes.
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, also while Python loads the modules.
    from postfix_mtasts.reports.command import run

    signal.signal(signal.SIGINT, interrupted)
    return run(words)
