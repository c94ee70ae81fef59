"""`postfix-mtasts-query DOMAIN`: each stage of a policy discovery, and what is wrong with it."""
