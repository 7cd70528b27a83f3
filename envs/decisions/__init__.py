"""What a walk asks an agent for: one decision a file, found by its name."""
