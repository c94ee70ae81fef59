"""What becomes of mail under an enforced policy: judged as Postfix does, from probes of the MX hosts."""
