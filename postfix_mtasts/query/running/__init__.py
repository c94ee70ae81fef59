"""The running daemon and its cache, as the administrator asks for them."""
