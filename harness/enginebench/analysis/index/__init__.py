"""Where the index over runs is kept: a DuckDB file of this machine (`duckdb_file`), or a database of a team (`sql`)."""
