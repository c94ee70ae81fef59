"""What is wrong with the TXT record at `_smtp._tls`, by which a domain asks for reports."""

import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postfix_mtasts.config_values import address
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.tlsrpt import TlsrptError, TlsrptRecord, find_record, record_name

_NO_REPORTS = "senders send no reports about this domain"
_FIRST = "Microsoft sends to the first address alone, so its reports do not arrive here"


@dataclass(frozen=True, slots=True)
class Published:
    """The record of a domain: None if there is none, or why it cannot be read."""

    domain: str
    record: TlsrptRecord | TlsrptError | DnsError | None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of its mailto: URIs, in lower case, but those that are none."""
        return tuple(filter(None, map(_address, self.uris)))

    @property
    def uris(self) -> tuple[str, ...]:
        """All URIs."""
        return self.record.rua if isinstance(self.record, TlsrptRecord) else ()

    @property
    def first(self) -> str:
        """The address that comes first, or empty if it is none."""
        return _address(self.uris[0]) if self.uris else ""


async def look_up(domain: str, resolver: Resolver) -> Published:
    """Look up the record of a domain."""
    try:
        return Published(domain, find_record((await resolver.texts(_name(domain))).records))
    except (DnsError, TlsrptError) as error:
        return Published(domain, error)


def check_record(published: Published, here: Sequence[str]) -> Iterator[Finding]:
    """What is wrong. `here` are the addresses that lead to this command, or none if that is unknown."""
    name, record = _name(published.domain), published.record
    if isinstance(record, DnsError):
        why = "whether senders send reports about this domain is unknown"
        yield Finding("record", Status.ERROR, f"the TXT lookup for {name} failed: {record}", why)
        return
    ours = here[0] if here else f"tlsrpt@{published.domain}"
    others = [uri for uri in published.uris if _address(uri) != ours]
    fix = "DNS", f'{name}. TXT "v=TLSRPTv1; rua={",".join((f"mailto:{ours}", *others))}"'
    if isinstance(record, TlsrptError):
        yield Finding("record", Status.ERROR, f"the TXT record {name}: {record}", _NO_REPORTS, *fix)
    elif record is None:
        yield Finding("record", Status.ERROR, f"there is no TXT record {name}", _NO_REPORTS, *fix)
    elif not published.addresses:
        yield Finding("record", Status.ERROR, f"{name} has no mail address in rua", "this command takes mails", *fix)
    elif published.first in here:
        what = f"{name} asks for reports to {published.first}"
        yield Finding("record", Status.OK, what, "the address leads to this command")
    elif any(one in here for one in published.addresses):
        what = f"{name} asks for reports to {record.rua[0]} first"
        yield Finding("record", Status.WARNING, what, _FIRST, *fix)
    else:
        shown = published.first or published.addresses[0]
        what = f"{name} asks for reports to {shown}, and that address is not known to lead to this command"
        why = "no entry of virtual_alias_maps or transport_maps leads there, and no mail was seen to arrive"
        yield Finding("record", Status.WARNING, what, why)


def _name(domain: str) -> str:
    return record_name(PolicyDomain(domain))


def _address(uri: str) -> str:
    """The address in a mailto: URI, or empty."""
    scheme, _, rest = uri.partition(":")
    try:
        return address(urllib.parse.unquote(rest.partition("?")[0]).lower()) if scheme.lower() == "mailto" else ""
    except ValueError:
        return ""
