"""Runs a plan on real engines and stores the results. Knows neither command line nor report."""
