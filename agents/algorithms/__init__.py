"""Stable-Baselines3's algorithms as agents of the search, one a file."""
