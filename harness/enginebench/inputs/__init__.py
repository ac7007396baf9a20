"""Reads and validates YAML files with the line of every key, so that an error can say what to write where."""
