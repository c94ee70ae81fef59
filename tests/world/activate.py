"""As systemd, pass file descriptors to a program: `activate.py FD:NAME … -- COMMAND …`.

The program takes the place of this process, so that LISTEN_PID is right. Imports nothing of ours.
"""

import fcntl
import os
import sys

FIRST = 3  # SD_LISTEN_FDS_START
ABOVE = 1000  # Out of the way of those to come.

if __name__ == "__main__":
    end = sys.argv.index("--")
    passed = [word.partition(":") for word in sys.argv[1:end]]
    aside = [fcntl.fcntl(int(descriptor), fcntl.F_DUPFD, ABOVE) for descriptor, _, _ in passed]
    for original, _, _ in passed:
        os.close(int(original))
    for number, descriptor in enumerate(aside):
        os.dup2(descriptor, FIRST + number)
        os.close(descriptor)
    os.environ["LISTEN_FDS"] = str(len(passed))
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDNAMES"] = ":".join(name for _, _, name in passed)
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
