"""Checks whether the TLS reports of others arrive here."""
