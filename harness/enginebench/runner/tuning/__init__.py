"""`bench tune`: which options of an engine make it fastest under the loads of a scenario."""
