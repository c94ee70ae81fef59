"""How the command speaks on standard error."""

import sys

PROGRAM = "postfix-mtasts-reports"


def complain(reason: str, hint: str = "") -> None:
    """Print an error, and what may help."""
    print(f"{PROGRAM}: error: {reason}", file=sys.stderr)  # noqa: T201 - this is the output
    if hint:
        print(f"hint: {hint}", file=sys.stderr)  # noqa: T201 - this is the output
