"""Settings: which there are, how they are resolved from arguments, a YAML file and defaults."""
