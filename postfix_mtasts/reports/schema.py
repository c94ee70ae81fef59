"""The tables of reports.sqlite. docs/reports.md tells other programs what is in them.

Times are seconds since 1970, and days are ISO 8601 texts, in UTC. What a report leaves out is NULL, except in keys,
which have an empty text for it.

- `messages` has a row for each mail or file that was taken in. `name` is that of its raw text in the Maildir beside the
  database, and `octets` how large that is, or 0 if it has been deleted.
- `reports` has a row for each policy domain of a report. `sender` is the domain of the DKIM signature, and `verified`
  says whether it counts. `identity` is the report-id, or the time of the report if it has none.
- `policies` and `failures` have what the report says: the totals of `summary`, and the items of `failure-details`.
- `groups` has the failures of a report that are of one kind, summed: those that differ in nothing but the sending IP
  address and the explanation. `kinds` says what they have in common. The views are made of these two, so that they need
  not read all failures. `example` is the failure with most sessions.
- `told` has what `alert` has told of and is not over: the kind of trouble, the domain or source, the result type, the
  day on which it was told, and whether it was told again after a week.
- `hidden` has the sources that an administrator has hidden, since when, and a JSON text: what they had reported then.
"""

VERSION = 1

CREATE = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- An administrator types it: it must never be that of another message.
    name TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    octets INTEGER NOT NULL,
    received INTEGER NOT NULL,
    tried INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    dkim TEXT NOT NULL,
    signer TEXT,
    dkim_reason TEXT NOT NULL,
    accepted INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_by_state ON messages (state, tried);
CREATE INDEX IF NOT EXISTS messages_by_time ON messages (received);
CREATE INDEX IF NOT EXISTS messages_by_digest ON messages (digest);
CREATE INDEX IF NOT EXISTS messages_by_dkim ON messages (dkim, received);
CREATE INDEX IF NOT EXISTS messages_with_mail ON messages (received, octets, dkim) WHERE octets > 0;

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
CREATE INDEX IF NOT EXISTS reports_by_day ON reports (day, verified, sender, domain);
CREATE INDEX IF NOT EXISTS reports_by_domain ON reports (domain, verified, day);
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

CREATE TABLE IF NOT EXISTS kinds (
    id INTEGER PRIMARY KEY,
    verified INTEGER NOT NULL,
    sender TEXT NOT NULL,
    domain TEXT NOT NULL,
    result TEXT NOT NULL,
    mx TEXT NOT NULL,
    receiving_ip TEXT NOT NULL,
    code TEXT NOT NULL,
    UNIQUE (verified, sender, domain, result, mx, receiving_ip, code)
);
CREATE INDEX IF NOT EXISTS kinds_by_domain ON kinds (domain);

CREATE TABLE IF NOT EXISTS groups (
    kind INTEGER NOT NULL REFERENCES kinds (id),
    day TEXT NOT NULL,
    report INTEGER NOT NULL REFERENCES reports (id),
    sessions INTEGER NOT NULL,
    example INTEGER,
    PRIMARY KEY (kind, day, report)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS groups_by_report ON groups (report);

CREATE TABLE IF NOT EXISTS told (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    result TEXT NOT NULL,
    since TEXT NOT NULL,
    still INTEGER NOT NULL,
    PRIMARY KEY (kind, name, result)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS hidden (
    sender TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    look TEXT NOT NULL
) WITHOUT ROWID;
"""
