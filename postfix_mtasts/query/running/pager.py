"""Shows long output on a terminal with a pager, as git does: $PAGER, or less if there is one."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, cast


@contextlib.contextmanager
def paged() -> Iterator[None]:
    """Show what is printed in the block with a pager. Nothing changes if standard output is no terminal.

    Raises BrokenPipeError if the reader has seen enough.
    """
    command = shlex.split(os.environ.get("PAGER", "less"))
    if not sys.stdout.isatty() or not command or not shutil.which(command[0]):
        yield
        return
    # Unless set otherwise, less ends at once if all fits on the screen, and shows colours.
    environment = {"LESS": "FRX", **os.environ}
    with subprocess.Popen(  # noqa: S603 - the user's own command
        command, stdin=subprocess.PIPE, text=True, env=environment
    ) as pager:
        stdin = cast(IO[str], pager.stdin)
        try:
            with contextlib.redirect_stdout(stdin):
                yield
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pager now.
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
