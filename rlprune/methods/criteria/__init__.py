"""Criteria score channels: which ones go. One criterion a file."""
