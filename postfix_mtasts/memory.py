"""Entries at hand, in a bounded space. What is dropped here is still in the store, or was only a "no policy".

Policies and "no policy" notes have bounds of their own: no flood of domains without a policy can push a policy out.
"""

from collections import OrderedDict

from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.entry import Entry


class Memory:
    """At most `policies` entries with a policy and `notes` entries without; the least recently used one goes first."""

    def __init__(self, *, policies: int, notes: int) -> None:
        self._policies: OrderedDict[PolicyDomain, Entry] = OrderedDict()
        self._notes: OrderedDict[PolicyDomain, Entry] = OrderedDict()
        self._limits = ((self._policies, policies), (self._notes, notes))

    def get(self, domain: PolicyDomain) -> Entry | None:
        """What is known of a domain; it counts as used."""
        for entries in (self._policies, self._notes):
            entry = entries.get(domain)
            if entry:
                entries.move_to_end(domain)
                return entry
        return None

    def put(self, domain: PolicyDomain, entry: Entry) -> None:
        """Note what is known of a domain."""
        self.forget(domain)
        (self._policies if entry.cached else self._notes)[domain] = entry
        for entries, limit in self._limits:
            if len(entries) > limit:
                entries.popitem(last=False)

    def forget(self, domain: PolicyDomain) -> None:
        """Drop what is known of a domain."""
        self._policies.pop(domain, None)
        self._notes.pop(domain, None)

    def policies(self) -> list[tuple[PolicyDomain, Entry]]:
        """All entries with a policy."""
        return list(self._policies.items())
