"""The load generator: takes requests as bytes, returns raw samples. Time stamps are accurate to 0.1 ms.

Does not know: engines, models, metrics, scenarios. The names below are its public interface; the submodules are internal.
"""

from enginebench.loadgen.client import OnProgress
from enginebench.loadgen.client_process import idle_lag_ms
from enginebench.loadgen.health import Acks, ClientHealth
from enginebench.loadgen.outcomes import OUTCOMES
from enginebench.loadgen.request import Body, LoadResult, LoadSpec, Progress, Target, WireRequest
from enginebench.loadgen.run import run_load

__all__ = [
    "OUTCOMES", "Acks", "Body", "ClientHealth", "LoadResult", "LoadSpec", "OnProgress", "Progress", "Target", "WireRequest", "idle_lag_ms",
    "run_load",
]  # fmt: skip
