"""Exact MACs and parameters, budgets, and plans projected onto them."""
