"""The daemon: the process that answers Postfix."""
