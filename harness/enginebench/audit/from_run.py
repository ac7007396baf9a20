"""Converts a stored run to claims, so that the audit can judge it: each row that ran becomes a claim with batch and lengths."""

from __future__ import annotations

import re

from enginebench.analysis.analysis import Analysis, Row
from enginebench.audit.claims import Claims, Serving, SourceEntry
from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.catalogue import THIS_CPU
from enginebench.physics.machine import split_machine

THROUGHPUT = "output_throughput"


def claims_of(analysis: Analysis, hardware: str | None) -> Claims:
    """The rows of a run as claims. UserError if no row has a throughput.

    hardware: for example '4xh100', reduced to the number of devices that a row used; None: unknown.
    """
    rows = [row for row in analysis.rows if row.status == "ok" and row.figures.get(THROUGHPUT) is not None]
    if not rows:
        raise UserError(f"run '{analysis.run.name}' has no throughput to audit", advice="see why: bench report")
    source = SourceEntry(title=f"run {analysis.run.name}", date=analysis.run.created_at)
    return Claims(
        title=f"Run {analysis.run.name}",
        sources={"run": source},
        serving=[_claim(number, row, hardware) for number, row in enumerate(rows, start=1)],
    )


def _claim(number: int, row: Row, hardware: str | None) -> Serving:
    deployment, load = row.deployment, row.load
    parallelism = Parallelism() if _is_cpu(hardware) else deployment.parallelism
    return Serving(
        id=f"row-{number}",
        source="run",
        says=f"{row.name}, {load.level_text}, {load.shape_text}",
        engine=deployment.engine,
        model=deployment.model,
        precision=deployment.precision,
        hardware=_used_hardware(row, hardware),
        tp=parallelism.tp,
        pp=parallelism.pp,
        dp_replicas=parallelism.dp_replicas,
        attention_dp=parallelism.attention_dp,
        ep=parallelism.ep,
        options=dict(deployment.options),
        concurrency=load.streams,
        isl=_tokens(row, "isl_p50"),
        osl=_tokens(row, "osl_p50"),
        output_tok_s=_value(row, THROUGHPUT),
    )


def _used_hardware(row: Row, hardware: str | None) -> str | None:
    """The devices that the row used, if the run recorded their number."""
    gpus = row.cells[0].record.traits.gpus
    if hardware is None or gpus is None or _is_cpu(hardware):
        return hardware
    return re.sub(r"^(\d+\s*x)?", f"{gpus}x", hardware, count=1)


def _is_cpu(hardware: str | None) -> bool:
    """Whether the deployment ran on this CPU, where all ranks share one memory."""
    found = split_machine(hardware) if hardware else None
    return found is not None and found[1] == THIS_CPU


def _value(row: Row, figure: str) -> float | None:
    found = row.figures.get(figure)
    return found.value if found is not None and found.value > 0 else None


def _tokens(row: Row, figure: str) -> int | None:
    """Tokens counted by the server; without a median (fewer than six requests), the requested number if it is fixed."""
    counted = _value(row, figure)
    if counted is not None:
        return round(counted) or None
    asked = row.load.input_tokens if figure.startswith("isl") else row.load.output_tokens
    return asked if isinstance(asked, int) else None
