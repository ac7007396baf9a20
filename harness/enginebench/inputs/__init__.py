"""Files that people write: YAML with the line of every key, validated, and errors that say what to write instead."""
