"""Allocators that are agents of their own, beside those of the search."""
