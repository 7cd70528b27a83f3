"""The command line: options derived from the settings, progress, results on the terminal."""
