"""Subcommands that ask the running daemon: its cache, its health, and many domains at once."""
