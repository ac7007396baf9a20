"""Judges published performance claims: `claims` reads them, `judge` and `statements` decide, `outcome` shows the result."""
