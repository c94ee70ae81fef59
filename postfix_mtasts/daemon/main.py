"""The entry point of postfix-mtasts-daemon. Ctrl-C ends it with status 130, also while Python loads the modules."""

import signal
import sys


def main() -> None:
    """Run the daemon."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Until the daemon handles it: it has begun nothing.
    from postfix_mtasts.daemon.command import run

    sys.exit(run(sys.argv[1:]))
