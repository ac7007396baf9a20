"""Capsules: a run as one file that anybody can check. `pack` writes one, `verify` recomputes all that is in it."""
