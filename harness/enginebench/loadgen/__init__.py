"""The load generator: requests as bytes in, raw samples out, with a clock that can be trusted to a tenth of a millisecond.

Does not know: engines, models, metrics, scenarios. Public surface: everything below; the submodules are its inside.
"""

from enginebench.loadgen.client import OnProgress
from enginebench.loadgen.client_process import idle_lag_ms
from enginebench.loadgen.health import Acks, ClientHealth
from enginebench.loadgen.outcomes import OUTCOMES
from enginebench.loadgen.request import Body, LoadResult, LoadSpec, Progress, Target, WireRequest
from enginebench.loadgen.run import run_load

__all__ = [
    "OUTCOMES",
    "Acks",
    "Body",
    "ClientHealth",
    "LoadResult",
    "LoadSpec",
    "OnProgress",
    "Progress",
    "Target",
    "WireRequest",
    "idle_lag_ms",
    "run_load",
]
