"""The process that answers Postfix."""
