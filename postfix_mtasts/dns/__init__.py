"""A stub resolver: policy records, addresses of hosts, and what DANE needs."""
