"""Allocators decide *how many* channels every group keeps. One rule a file."""
