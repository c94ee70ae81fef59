"""A large database of reports within seconds, made by SQL: what `records` would have written for days and days."""

import datetime
from pathlib import Path

from postfix_mtasts.reports.store import Store

SENDERS, DOMAINS, HOSTS = 30, 4, 4
RESULTS = (
    "starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted",
    "validation-failure", "sts-policy-fetch-error",
)  # fmt: skip
KINDS = HOSTS * len(RESULTS)  # Of failures that a sender reports of a domain.

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count)"
_MESSAGE = """
INSERT INTO messages VALUES (1, 'made', '', 0, :now, :now, 'stored', '', 'verified', 'sender0.example', '', 0)
"""
_REPORTS = f"""
{_NUMBERS} INSERT INTO reports SELECT i + 1, printf('%020x', i + 1), 1, 1,
    'sender' || (i % :senders) || '.example', i, 'domain' || (i / :senders % :domains) || '.example',
    date(:today, '-' || (i / :senders / :domains + 1) || ' days'),
    unixepoch(:today, '-' || (i / :senders / :domains + 1) || ' days'),
    unixepoch(:today, '-' || (i / :senders / :domains) || ' days') - 1, 'Sender', i, '' FROM n
"""
_POLICIES = "INSERT INTO policies SELECT id, id, 'sts', 'enforce', 5000, 100 + id % 900 FROM reports"
_KINDS = f"""
{_NUMBERS} INSERT INTO kinds SELECT i + 1, 1, 'sender' || (i / :kinds % :senders) || '.example',
    'domain' || (i / :kinds / :senders) || '.example', r.value,
    'mx' || (i % :hosts) || '.domain' || (i / :kinds / :senders) || '.example', '192.0.2.' || (i % :hosts), ''
FROM n JOIN json_each(:results) r ON r.key = i % :kinds / :hosts
"""
_FAILURES = f"""
{_NUMBERS} INSERT INTO failures SELECT i + 1, i / :each + 1, 'certificate-expired', 10, 'mx', '192.0.2.1',
    '198.51.100.1', NULL, 'https://sender.example/explanation?of=what-happened' FROM n
"""
_GROUPS = """
INSERT INTO groups SELECT k.id, r.day, r.id, 1 + (k.id + r.id) % 49, (r.id - 1) * :each + 1
FROM kinds k CROSS JOIN reports r ON r.sender = k.sender AND r.domain = k.domain AND (k.id + r.id) % :kinds < :each
"""


def fill(path: Path, days: int, failures: int) -> None:
    """Reports of so many days up to yesterday, one a day from each sender about each domain, with so many failures."""
    today = datetime.datetime.now(datetime.UTC).date()
    reports = days * SENDERS * DOMAINS
    each = min(KINDS, -(-failures // reports))
    with Store(path) as store:
        store.open()
        store.execute("PRAGMA journal_mode = OFF")  # Nobody needs it after a power cut.
        store.execute("PRAGMA synchronous = OFF")
        indexes = store.select("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        values: dict[str, object] = {
            "today": today.isoformat(), "now": int(datetime.datetime.now(datetime.UTC).timestamp()),
            "senders": SENDERS, "domains": DOMAINS, "hosts": HOSTS, "kinds": KINDS, "each": each,
            "results": "[" + ", ".join(f'"{result}"' for result in RESULTS) + "]",
        }  # fmt: skip
        with store.transaction():
            for name, _ in indexes:
                store.execute(f"DROP INDEX {name}")
            store.execute(_MESSAGE, values)
            store.execute(_REPORTS, values | {"count": reports})
            store.execute(_POLICIES)
            store.execute(_KINDS, values | {"count": SENDERS * DOMAINS * KINDS})
            store.execute(_FAILURES, values | {"count": reports * each})
            store.execute("CREATE INDEX made ON reports (sender, domain, day)")  # In this order, groups are written.
            store.execute(_GROUPS, values)
            store.execute("DROP INDEX made")
            for _, statement in indexes:
                store.execute(statement)
