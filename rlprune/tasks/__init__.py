"""Tasks: what a sample is, its loss, its score."""
