"""RFC 8461 as values and rules: records, policies, what an adapter observed, and the decisions that follow."""
