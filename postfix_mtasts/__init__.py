"""MTA-STS (RFC 8461) policies for Postfix.

A query whose reply is not ready goes through five modules: `server` → `lookup` → `decide` → `reply` → `socketmap`.
"""

__version__ = "0.1.0"
