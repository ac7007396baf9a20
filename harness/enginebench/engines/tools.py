"""Programs that are no engines, each in an environment of its own as engines are: `bench engines install lm-eval`."""

from __future__ import annotations

from pathlib import Path

from enginebench.engines.environments import Pins, python_of
from enginebench.machine.folders import resource_dir

LM_EVAL = "lm-eval"


def tools() -> dict[str, Pins]:
    """Name -> its pinned packages. The file <name>.constraints.txt beside the adapters pins their dependencies."""
    pinned = {LM_EVAL: ("lm-eval[api]==0.4.13", "transformers==5.23.0")}  # transformers only for its tokenizers: there is no torch
    return {name: Pins(requirements, _constraints(name)) for name, requirements in pinned.items()}


def _constraints(name: str) -> Path | None:
    file = resource_dir("adapters") / f"{name}.constraints.txt"
    return file if file.is_file() else None


def python_of_tool(name: str) -> Path | None:
    """The interpreter of its environment; None if it is not installed."""
    return python_of(name, tools()[name])
