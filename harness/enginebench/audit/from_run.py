"""A stored run as claims, so that one's own measurements are held to what is asked of everybody's.

Every row that ran becomes a claim with its batch and lengths stated. It does not judge.
"""

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
    """The rows of a run as claims. hardware: '4xh100', of which a row has as many as it ran on; None: nobody knows what it ran on.

    UserError when no row has a throughput.
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
    spread = Parallelism() if _shares_one_memory(hardware) else deployment.parallelism
    return Serving(
        id=f"row-{number}",
        source="run",
        says=f"{row.name}, {load.level_text}, {load.shape_text}",
        engine=deployment.engine,
        model=deployment.model,
        precision=deployment.precision,
        hardware=_taken(row, hardware),
        tp=spread.tp,
        pp=spread.pp,
        dp_replicas=spread.dp_replicas,
        attention_dp=spread.attention_dp,
        ep=spread.ep,
        options=dict(deployment.options),
        concurrency=load.concurrency if not load.open_loop else None,
        isl=_tokens(row, "isl_p50"),
        osl=_tokens(row, "osl_p50"),
        output_tok_s=_value(row, THROUGHPUT),
    )


def _taken(row: Row, hardware: str | None) -> str | None:
    """The part of the machine that the row's deployment took, where the run says how many devices those were."""
    gpus = row.cells[0].record.gpus
    if hardware is None or gpus is None or _shares_one_memory(hardware):
        return hardware
    return re.sub(r"^(\d+\s*x)?", f"{gpus}x", hardware, count=1)


def _shares_one_memory(hardware: str | None) -> bool:
    """Whether all ranks of a deployment read the same memory, however many they are: those on a processor do."""
    found = split_machine(hardware) if hardware else None
    return found is not None and found[1] == THIS_CPU


def _value(row: Row, figure: str) -> float | None:
    found = row.figures.get(figure)
    return found.value if found is not None and found.value > 0 else None


def _tokens(row: Row, figure: str) -> int | None:
    """What the server counted; below six requests there is no median, and then what was asked if it is one number."""
    counted = _value(row, figure)
    if counted is not None:
        return round(counted) or None
    asked = row.load.input_tokens if figure.startswith("isl") else row.load.output_tokens
    return asked if isinstance(asked, int) else None
