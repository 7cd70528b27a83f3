"""Units say *what* goes: whole channels, or parts of layers. One unit a file."""
