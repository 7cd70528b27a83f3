"""The structure of a network, and cutting it."""
