"""All tables, and the names of the cases that cost the most."""

from tests.hostile import hosts, nameservers, policies, responses
from tests.hostile.case import Case

TABLES = {
    "hosts": [*hosts.CONNECTIONS, *hosts.HANDSHAKES, *hosts.CERTIFICATES, *hosts.AFTER_THE_HANDSHAKE],
    "responses": [*responses.STATUSES, *responses.HEADERS, *responses.BODIES],
    "policies": policies.POLICIES,
    "nameservers": [
        *(*nameservers.SILENCE, *nameservers.FORGERIES, *nameservers.RCODES, *nameservers.FORMS),
        *(*nameservers.RECORDS, *nameservers.LARGE, *nameservers.HOSTS),
    ],
}
AT_ONCE = 20  # Domains of a costly kind.
COSTLY = (
    *("KeyUpdate without end", "KeyUpdate for each of ours", "tickets without end", "HelloRequest without end"),
    *("a field of 10,000 bits", "a retry for a field of 8,192 bits", "a certificate of 4,000 names"),
    *("chunks of one octet", "extensions of chunks", "a body without end", "24,000 trailers"),
    *("1,000 mx", "empty fields without end"),
    *("another id, 5,000 times", "100 names of many labels"),
)


def named(name: str) -> Case:
    """The only case of this name."""
    (found,) = (case for table in TABLES.values() for case in table if case.name == name)
    return found
