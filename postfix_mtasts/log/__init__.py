"""The log: one function for each kind of event."""
