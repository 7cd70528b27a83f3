"""Repairs without training: one a file, found by name."""
