"""Data sets, where they come from, batches of images."""
