"""What a command does, from open files to written results."""
