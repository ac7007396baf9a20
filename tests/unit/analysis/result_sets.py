"""Result sets with a known truth, without files: throughputs of each deployment at each load, with noise of a known size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from enginebench.analysis.conclude import conclude
from enginebench.analysis.conclusion import Conclusion
from enginebench.analysis.rows import CellResult, Row, fold
from enginebench.domain import Cell, ClosedLoop, Deployment, Load, OpenLoop
from enginebench.metrics.slo import Slo
from enginebench.records.cell import CellRecord, CellTraits
from enginebench.records.run import RunRecord
from enginebench.validity import Reason, Verdict
from enginebench.validity.judge import all_checks

Truth = Mapping[str, Callable[[Load], float]]
"""Deployment -> the true figure at a load."""
CONTEXTS, STREAMS = (1024, 4096, 16384), (1, 8, 64)
GRID = tuple(ClosedLoop(concurrency=c, input_tokens=n, output_tokens=128) for n in CONTEXTS for c in STREAMS)
"""Nine loads."""


def base(load: Load) -> float:
    """Throughput of a usual engine: rises with the streams, falls with the context."""
    assert isinstance(load.input_tokens, int)
    return float(90 * load.level**0.7 / (1 + load.input_tokens / 8192))


def deployment(name: str, model: str = "m") -> Deployment:
    return Deployment(name, model, "none", f"hf:{model}")


def cell(
    served: Deployment, load: Load, repeat: int, figures: Mapping[str, float | None], *, verdict: Verdict = "valid", check: str = "",
    status: str = "ok", traits: CellTraits | None = None, requests: int = 300,
) -> CellResult:  # fmt: skip
    record = CellRecord.of(Cell(served, load, repeat), status, "exited" if status == "failed" else None)
    record = replace(record, traits=traits or CellTraits())
    if status != "ok":
        return CellResult(record, {})
    its = next((each for each in all_checks() if each.id == check), None)
    reasons = (Reason(its, "invalid" if verdict == "invalid" else "suspect", f"{check} was measured"),) if its else ()
    return CellResult(record, dict(figures), verdict, reasons, requests=requests)


def rows(
    truth: Truth, loads: Sequence[Load] = GRID, *, restarts: int = 4, noise: float = 0.01, seed: int = 0, model: str = "m",
    change: Callable[[str, Load, int, CellResult], CellResult | None] = lambda _name, _load, _restart, its: its, launch_noise: float = 0.0,
    traits: CellTraits | None = None,
) -> list[Row]:  # fmt: skip
    """The rows. noise: standard deviation of the logarithm of a cell; launch_noise: of a whole restart. change: replaces a cell, or removes
    it by None."""
    random = np.random.default_rng(seed)
    out = []
    for name, its in truth.items():
        served = deployment(name, model)
        launch = np.exp(launch_noise * random.standard_normal(restarts))
        for load in loads:
            values = its(load) * launch * np.exp(noise * random.standard_normal(restarts))
            cells = [cell(served, load, i, {"output_throughput": float(v)}, traits=traits) for i, v in enumerate(values)]
            kept = [found for i, each in enumerate(cells) if (found := change(name, load, i, each)) is not None]
            if kept:
                out.append(fold(kept, {}, name))
    return out


def times(factor: float | Callable[[Load], float]) -> Callable[[Load], float]:
    """A deployment that is so many times as fast as the usual one."""
    return lambda load: base(load) * (factor(load) if callable(factor) else factor)


def run_record() -> RunRecord:
    return RunRecord("demo", "2026-01-01T00:00:00+00:00", {"file": "demo.yaml"}, "p", (), {}, "1")


def concluded(found: Sequence[Row], *, slo: Slo | None = None, equal_within: float | None = None, **others: Any) -> Conclusion:
    return conclude(found, run_record(), {}, slo=slo, equal_within=equal_within, **others)


def open_loops(*rates: float) -> tuple[Load, ...]:
    return tuple(OpenLoop(rate=rate, input_tokens=1024, output_tokens=128) for rate in rates)


def probed(
    attained: Mapping[str, Callable[[float], float]], rates: Sequence[float], *, slo: Slo, restarts: int = 2, requests: int = 300,
    exact: bool = False, spread: float = 0.0, seed: int = 0, prices: bool = False,
) -> list[Row]:  # fmt: skip
    """Rows of open loops whose requests meet the SLO with a known probability. exact: that share of them does. spread: how much restarts
    differ in the level they can take."""
    random = np.random.default_rng(seed)
    out = []
    for name, truth in attained.items():
        factors = np.exp(spread * random.standard_normal(restarts))
        for rate in rates:
            load = OpenLoop(rate=rate, input_tokens=128, output_tokens=64, requests=requests)
            cells = []
            for i in range(restarts):
                share = truth(rate) if exact else random.binomial(requests, truth(rate / factors[i])) / requests
                figures = {"output_throughput": 64 * rate, "slo_attainment": share, "goodput": share * rate}
                figures |= {"cost_per_token": 10 / rate} if prices else {}
                cells.append(cell(deployment(name), load, i, figures, requests=requests))
            out.append(fold(cells, {}, name))
    return out
