"""The nouns of a comparison as frozen plain data: deployment, load, cell, sample, container; and the hashes that identify them.

No I/O, no engine, no clock. A deployment with its loads is plain data, so it can be sent to another process or another host.
"""

from enginebench.domain.cell import Cell, Status
from enginebench.domain.container import Container
from enginebench.domain.deployment import Deployment, Parallelism, Runtime
from enginebench.domain.ids import JSON, canonical, fingerprint, plain, plain_object
from enginebench.domain.load import Length, Load
from enginebench.domain.sample import Sample

__all__ = [
    "JSON",
    "Cell",
    "Container",
    "Deployment",
    "Length",
    "Load",
    "Parallelism",
    "Runtime",
    "Sample",
    "Status",
    "canonical",
    "fingerprint",
    "plain",
    "plain_object",
]
