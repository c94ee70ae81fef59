"""What Postfix asks, what it is told, and which Postfix is installed here."""
