"""A stub resolver: it looks up policy records, addresses of hosts, and what DANE needs."""
