"""TLS reports (RFC 8460) that other mail servers send about a domain of ours: read, checked and shown."""
