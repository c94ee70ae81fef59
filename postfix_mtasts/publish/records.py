"""The names and records of published domains: what stands in our zone, and what customers put into theirs.

With `publish.zone`, three CNAME records of a customer lead to names of ours, and no change needs his DNS any more:

    _mta-sts.example.com.    CNAME  example.com._mta-sts.ZONE.    TXT    the id of his policy
    mta-sts.example.com.     CNAME  policy.ZONE.                  A, AAAA, CAA
    _smtp._tls.example.com.  CNAME  _smtp._tls.ZONE.              TXT    where TLS reports go

Without it, these records stand at the names of each domain, and its owner changes the TXT record with each policy.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from postfix_mtasts.config import Publish
from postfix_mtasts.publish.events import RefusedError
from postfix_mtasts.sts import tlsrpt
from postfix_mtasts.sts.domain import MAX_NAME, PolicyDomain
from postfix_mtasts.sts.record import Record

TTL = 300  # Seconds. A sender whose delivery fails looks for another id, and sees it only after that.


@dataclass(frozen=True, slots=True)
class ZoneRecord:
    """A record of a zone. `name` is complete, without the final dot. `data` is as in a zone file."""

    name: str
    type: str
    data: str

    def __str__(self) -> str:
        """The line of a zone file."""
        return f"{self.name}. {TTL} IN {self.type} {self.data}"


def record_name(domain: PolicyDomain, settings: Publish) -> str:
    """The name of the TXT record with the id. Raises RefusedError."""
    if not settings.zone:
        return domain.record_name()
    name = f"{domain.name}._mta-sts.{settings.zone}"
    if len(name) > MAX_NAME:
        raise RefusedError(f"is too long: {name[:40]}... would have more than {MAX_NAME} characters")
    return name


def host_name(domain: PolicyDomain, settings: Publish) -> str:
    """The name that has the addresses of the policy host."""
    return f"policy.{settings.zone}" if settings.zone else domain.policy_host()


def reports_name(domain: PolicyDomain, settings: Publish) -> str:
    """The name of the TXT record that says where TLS reports go."""
    return f"_smtp._tls.{settings.zone}" if settings.zone else tlsrpt.record_name(domain)


def customer_records(domain: PolicyDomain, settings: Publish) -> tuple[ZoneRecord, ...]:
    """What the owner of a domain puts into its zone, once and for all; nothing without a zone of ours."""
    if not settings.zone:
        return ()
    made = [
        ZoneRecord(domain.record_name(), "CNAME", f"{record_name(domain, settings)}."),
        ZoneRecord(domain.policy_host(), "CNAME", f"{host_name(domain, settings)}."),
    ]
    if settings.reports and domain.name != settings.zone:
        made.append(ZoneRecord(tlsrpt.record_name(domain), "CNAME", f"{reports_name(domain, settings)}."))
    return tuple(made)


def leads_here(
    domain: PolicyDomain, alias: str | None, addresses: tuple[str, ...] | None, settings: Publish
) -> bool | None:
    """Whether a domain's policy host is ours; None if that is not known.

    `alias` is the target of its CNAME record, "" if it has none. `addresses` are those of the policy host. Both are
    None if they could not be looked up.
    """
    if settings.zone and alias is None:
        return None
    if settings.zone and alias == host_name(domain, settings):
        return True
    if addresses is None or not (settings.addresses or settings.zone):
        return None
    return bool(addresses) and set(addresses) <= set(settings.addresses)


def domain_records(domain: PolicyDomain, record_id: str | None, settings: Publish) -> Iterator[ZoneRecord]:
    """What stands in our zone for one domain alone. `record_id` is None if it has no record with an id."""
    if record_id:
        yield ZoneRecord(record_name(domain, settings), "TXT", _quoted(str(Record(record_id))))
    if not settings.zone:
        yield from _records_of_host(host_name(domain, settings), reports_name(domain, settings), settings)


def zone_records(domains: Iterable[tuple[PolicyDomain, str | None]], settings: Publish) -> Iterator[ZoneRecord]:
    """All of our records for these domains and their ids."""
    first = True
    for domain, record_id in domains:
        if first:
            yield from shared_records(settings)
        first = False
        yield from domain_records(domain, record_id, settings)


def shared_records(settings: Publish) -> Iterator[ZoneRecord]:
    """The records in our zone that all customers share."""
    if settings.zone:
        yield from _records_of_host(f"policy.{settings.zone}", f"_smtp._tls.{settings.zone}", settings)


def _records_of_host(host: str, reports: str, settings: Publish) -> Iterator[ZoneRecord]:
    for address in settings.addresses:
        yield ZoneRecord(host, "AAAA" if ":" in address else "A", address)
    if settings.ca:
        # A CAA record is looked for at the end of the CNAME first, so this one holds whatever the customer's zone has
        # (RFC 8659, 3).
        yield ZoneRecord(host, "CAA", f'0 issue "{settings.ca}"')
    if settings.reports:
        yield ZoneRecord(reports, "TXT", _quoted(f"v=TLSRPTv1; rua={','.join(settings.reports)}"))


def _quoted(text: str) -> str:
    """A TXT record in strings of at most 255 characters, which need no escapes."""
    return " ".join(f'"{text[start : start + 255]}"' for start in range(0, len(text), 255))
