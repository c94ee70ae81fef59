"""Connections to other machines: to policy hosts over HTTPS, and to MX hosts over SMTP."""
