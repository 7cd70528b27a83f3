"""Which channels belong together, and proof of it."""
