"""The version, by itself: whoever needs no more should not load the package's functions."""

__version__ = "0.1.0"
