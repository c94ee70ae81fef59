"""What Postfix sends and receives over socketmap, and which Postfix is installed on this machine."""
