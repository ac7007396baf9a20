"""What a cell rests on: raw samples, or figures that another tool's file states without them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from enginebench.records.samples import Samples


@dataclass(frozen=True)
class Stated:
    """Figures of a cell that a file of another tool states."""

    source: str
    """The tool and the file: 'vllm bench serve, serve.json'."""
    figures: Mapping[str, float]
    """Figure ('ttft_p50', 'output_throughput', ...) -> value in the metric's unit (`enginebench.metrics.registry`)."""


Evidence: TypeAlias = "Samples | Stated"
