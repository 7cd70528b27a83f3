"""The plan: which channels stay."""
