"""Judges published performance claims.

`claims` reads them (`from_run`: from a stored run), `judge` and `statements` decide, with figures from `physics`. `outcome` and `page` show
the result, `reproduce` writes a scenario that tests a claim.
"""
