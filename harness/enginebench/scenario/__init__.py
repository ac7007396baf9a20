"""Reads and checks a scenario file: all its deployments and loads, or one error that points at the line.

Launches and fetches nothing. Checks what can be known from the file, the adapters and the file system.
"""

from enginebench.scenario.expand import MAX_CELLS, Scenario, load_scenario
from enginebench.scenario.find import LoadSearch

__all__ = ["MAX_CELLS", "LoadSearch", "Scenario", "load_scenario"]
