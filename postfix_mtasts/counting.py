"""How a number of things is said, in all that people read: `1 policy`, `1,204 policies`. Pure functions."""


def noun(count: int, one: str, many: str = "") -> str:
    """What stands behind a count: `one` if it is 1, otherwise `many`, which is `one` and an s unless it is given."""
    return one if count == 1 else many or f"{one}s"


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its noun, and its thousands apart."""
    return f"{count:,} {noun(count, one, many)}"


def times(count: int) -> str:
    """How often something was: `once`, `3 times`."""
    return "once" if count == 1 else f"{count:,} times"
