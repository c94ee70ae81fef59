"""`postfix-mtasts-query doctor`: what is wrong on this machine, and the line that fixes it."""
