"""The token in each form, by which is known that a POST comes from a page of ours. It needs no cookie.

It says when the page was made, and is signed with a key that this process alone has, together with who asked for the
page and what the form does. Another site cannot read a page, so it has no token; nor can it use that of somebody else.
"""

import hashlib
import hmac

FIELD = "token"
VALID = 12 * 3600.0  # Seconds. A page may be left open over a day of work.


def token(key: bytes, who: str, path: str, now: float) -> str:
    """The token of a form that is sent to a path."""
    made = str(int(now))
    return f"{made}.{_signature(key, who, path, made)}"


def is_valid(given: str, key: bytes, who: str, path: str, now: float) -> bool:
    """Whether a token is one of ours, for this user and path, and not too old."""
    made, _, signature = given.partition(".")
    if not (made.isascii() and made.isdecimal() and len(made) <= 12 and signature.isascii()):
        return False
    expected = _signature(key, who, path, made)
    return hmac.compare_digest(signature, expected) and -60 <= now - int(made) <= VALID


def _signature(key: bytes, who: str, path: str, made: str) -> str:
    return hmac.new(key, "\0".join((who, path, made)).encode(), hashlib.sha256).hexdigest()
