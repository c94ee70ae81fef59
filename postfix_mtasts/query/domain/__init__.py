"""`postfix-mtasts-query DOMAIN`: each stage of a discovery, and what is wrong with it."""
