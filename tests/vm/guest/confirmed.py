"""What is confirmed to Postfix while the power is cut, and what of it is still known after the next boot.

confirmed.py ask FIRST END      ask for dFIRST.test … d(END-1).test, one after the other; print the time of each answer
confirmed.py compare SECONDS    read these lines: what is not stored was answered at most so many seconds before the
                                last line, and the database is sound
"""

import sqlite3
import sys
import time
from pathlib import Path

from tests.world.daemon import ask

DATABASE = Path("/var/lib/postfix-mtasts/policies.sqlite")


def confirm(first: int, end: int) -> None:
    for number in range(first, end):
        domain = f"d{number}.test"
        answer = ask("inet:127.0.0.1:8461", domain)
        assert answer.startswith("OK secure match=mx.good.test "), (domain, answer)
        print(time.time(), domain, flush=True)  # noqa: T201
        time.sleep(0.1)  # So that they last until the power is cut.


def compare(allowed: float) -> bool:
    confirmed = {domain: float(when) for when, domain in (line.split() for line in sys.stdin if line.endswith("\n"))}
    database = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)
    (state,) = database.execute("PRAGMA integrity_check").fetchone()
    lost = confirmed.keys() - {key for (key,) in database.execute("SELECT key FROM policies")}
    seconds = max(confirmed.values()) - min((confirmed[domain] for domain in lost), default=max(confirmed.values()))
    damaged = [file.name for file in DATABASE.parent.glob("*damaged*")]
    print(f"{len(confirmed)} confirmed, {len(lost)} lost, of the last {seconds:.2f} s; database: {state}", *damaged)  # noqa: T201
    return bool(confirmed) and seconds <= allowed and state == "ok" and not damaged


if sys.argv[1] == "ask":
    confirm(int(sys.argv[2]), int(sys.argv[3]))
else:
    sys.exit(not compare(float(sys.argv[2])))
