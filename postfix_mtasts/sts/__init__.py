"""RFC 8461 as values and rules: records, policies, what was observed, and what follows from it."""
