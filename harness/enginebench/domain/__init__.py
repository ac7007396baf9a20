"""The domain of a comparison as frozen plain data: deployment, load, search, cell, sample, container; and the hashes that identify them.

No I/O, no engine, no clock. A deployment with its loads is plain data, so it can be sent to another process or another host.
Each module with kinds of load is imported here, which registers them.
"""

from enginebench.domain.cell import Cell, Status
from enginebench.domain.container import Container
from enginebench.domain.deployment import Deployment, Parallelism, Runtime
from enginebench.domain.ids import JSON, canonical, fingerprint, plain, plain_object
from enginebench.domain.load import KINDS, Length, Load, Phase, field_names, kind_of, load_fields
from enginebench.domain.load_field import fields_of
from enginebench.domain.loads import ClosedLoop, DrawnLoad, OpenLoop, TraceReplay
from enginebench.domain.prefix_rule import PrefixRule
from enginebench.domain.sample import Sample
from enginebench.domain.search import Search
from enginebench.domain.speculation import Speculation
from enginebench.domain.stepped_load import SteppedLoop

__all__ = [
    "JSON", "KINDS", "Cell", "ClosedLoop", "Container", "Deployment", "DrawnLoad", "Length", "Load", "OpenLoop", "Parallelism", "Phase",
    "PrefixRule", "Runtime", "Sample", "Search", "Speculation", "Status", "SteppedLoop", "TraceReplay", "canonical", "field_names",
    "fields_of", "fingerprint", "kind_of", "load_fields", "plain", "plain_object",
]  # fmt: skip
