"""The command postfix-mtasts-publish: policies of our own, from the first record to the last."""
