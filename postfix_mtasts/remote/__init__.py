"""Connections to other people's machines: policy hosts over HTTPS, MX hosts over SMTP."""
