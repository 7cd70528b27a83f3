"""What the verbs do, one a file."""
