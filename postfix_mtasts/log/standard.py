"""Opens /dev/null in place of standard files that are missing.

Without them, the next file or socket that is opened would be standard error, and get what is written there.
"""

import os
import sys


def complete() -> None:
    """Make sure that the descriptors 0 to 2 are open, and that `sys` has files for them."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest number that is free.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode))
