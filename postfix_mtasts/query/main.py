"""The entry point of postfix-mtasts-query. Ctrl-C ends it at once, also while Python loads the modules."""

import signal
import sys


def main() -> None:
    """Run the command."""
    interrupted = signal.getsignal(signal.SIGINT)  # A shell without job control ignores it for background processes.
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from postfix_mtasts.query.command import run

    signal.signal(signal.SIGINT, interrupted)
    sys.exit(run(sys.argv[1:]))
