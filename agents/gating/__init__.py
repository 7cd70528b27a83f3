"""Agents of runtime pruning."""
