"""What the administrator reads in the log: one function an event."""
