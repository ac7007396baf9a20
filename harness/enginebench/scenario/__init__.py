"""Reads and checks a scenario file: all its deployments and loads, or one error that points at the line.

Launches and fetches nothing. Checks what can be known from the file, the adapters and the file system.
"""

from enginebench.scenario.defaults import load_at
from enginebench.scenario.expand import MAX_CELLS, load_scenario
from enginebench.scenario.scenario import Scenario

__all__ = ["MAX_CELLS", "Scenario", "load_at", "load_scenario"]
