"""Data, network and structure opened together."""
