"""postfix-mtasts-query: why a domain has a policy or none, what Postfix is told, and what is wrong on this machine.

`command` reads the command line; each subcommand is a module with `arguments(parser)` and `run(arguments, output)`,
which gives the exit status. They drive the adapters and rules of the daemon: nothing is looked up or parsed otherwise.
"""
