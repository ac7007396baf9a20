"""Runs a plan on real engines and stores what happened. Knows no command line and no report."""

from enginebench.runner.reporter import Reporter, Silent
from enginebench.runner.sweep import Sweep

__all__ = ["Reporter", "Silent", "Sweep"]
