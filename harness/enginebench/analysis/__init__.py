"""What may be concluded from a stored run: rows, ranking, parity, caveats, and how two runs differ."""
