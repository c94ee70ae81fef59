"""The tables of reports.sqlite. docs/reports.md tells other programs what is in them.

Times are seconds since 1970, and days are ISO 8601 texts, in UTC. What a report leaves out is NULL, except in `daily`
and `daily_failures`, whose keys have an empty text for it.

- `messages` has a row for each mail or file that was taken in. Its raw text is in the folder `mails` beside the
  database, in a file of that name, for `keep_mails` days. `state` is one of `State` in `store`.
- `reports` has a row for each policy domain of a report. `sender` is the domain of the DKIM signature, and `verified`
  says whether it counts. `identity` is the report-id, or the time of the report if it has none.
- `policies` and `failures` have what the report says: the totals of `summary`, and the items of `failure-details`.
- `daily` and `daily_failures` have the sums from which the views are made. They are written in the transaction that
  writes the report, and could be computed anew from the others.
"""

VERSION = 1

CREATE = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    received INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    dkim TEXT NOT NULL,
    signer TEXT,
    dkim_reason TEXT NOT NULL,
    accepted INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS messages_by_state ON messages (state, received);
CREATE INDEX IF NOT EXISTS messages_by_time ON messages (received);

CREATE TABLE IF NOT EXISTS reports (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    message INTEGER NOT NULL REFERENCES messages (id),
    verified INTEGER NOT NULL,
    sender TEXT NOT NULL,
    identity TEXT NOT NULL,
    domain TEXT NOT NULL,
    day TEXT NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    organization TEXT,
    report_id TEXT,
    problems TEXT NOT NULL,
    UNIQUE (verified, sender, identity, domain)
);
CREATE INDEX IF NOT EXISTS reports_by_message ON reports (message);
CREATE INDEX IF NOT EXISTS reports_by_sender ON reports (verified, sender, day, "end");
CREATE INDEX IF NOT EXISTS reports_by_day ON reports (day, verified);
CREATE INDEX IF NOT EXISTS reports_by_report_id ON reports (report_id);

CREATE TABLE IF NOT EXISTS policies (
    id INTEGER PRIMARY KEY,
    report INTEGER NOT NULL REFERENCES reports (id),
    type TEXT,
    mode TEXT,
    successful INTEGER NOT NULL,
    failed INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS policies_by_report ON policies (report);

CREATE TABLE IF NOT EXISTS failures (
    id INTEGER PRIMARY KEY,
    policy INTEGER NOT NULL REFERENCES policies (id),
    result TEXT,
    sessions INTEGER NOT NULL,
    mx TEXT,
    receiving_ip TEXT,
    sending_ip TEXT,
    code TEXT,
    information TEXT
);
CREATE INDEX IF NOT EXISTS failures_by_policy ON failures (policy);

CREATE TABLE IF NOT EXISTS daily (
    day TEXT NOT NULL,
    verified INTEGER NOT NULL,
    sender TEXT NOT NULL,
    domain TEXT NOT NULL,
    type TEXT NOT NULL,
    mode TEXT NOT NULL,
    successful INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    policies INTEGER NOT NULL,
    PRIMARY KEY (day, verified, sender, domain, type, mode)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS daily_failures (
    day TEXT NOT NULL,
    verified INTEGER NOT NULL,
    sender TEXT NOT NULL,
    domain TEXT NOT NULL,
    result TEXT NOT NULL,
    mx TEXT NOT NULL,
    receiving_ip TEXT NOT NULL,
    code TEXT NOT NULL,
    sessions INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    sending_ip TEXT,
    information TEXT,
    PRIMARY KEY (day, verified, sender, domain, result, mx, receiving_ip, code)
) WITHOUT ROWID;
"""
