"""A scenario file, read and checked: every deployment and load it asks for, or one error that points at the line.

Nothing is launched or fetched here. Checks what can be known from the file, the adapters and the file system.
"""

from enginebench.scenario.expand import MAX_CELLS, Scenario, load_scenario
from enginebench.scenario.find import LoadSearch

__all__ = ["MAX_CELLS", "LoadSearch", "Scenario", "load_scenario"]
