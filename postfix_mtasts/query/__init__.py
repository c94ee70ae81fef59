"""`postfix-mtasts-query`: why a domain has a policy or none, what Postfix gets, and what is wrong on this machine."""
