"""Audits a file of published claims, or a stored run: reads it, judges every claim, prices what has a price."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from enginebench.analysis.analysis import Analysis, Row, analyse
from enginebench.audit.claims import Claims, Serving, SourceEntry
from enginebench.audit.outcome import Audit
from enginebench.audit.physics import Physics
from enginebench.audit.reading import read_claims
from enginebench.audit.statements import contradictions, judge_all
from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.metrics.costs import Cost, Prices, cost
from enginebench.physics.captures import CAPTURED
from enginebench.physics.catalogue import ANYTHING, models, read_machine, with_count
from enginebench.physics.deployment_limits import weights_of
from enginebench.physics.detect import hardware_of_run, is_cpu
from enginebench.physics.placed import read_popularity
from enginebench.physics.placement import GGUF_ENGINES
from enginebench.physics.weights import weigh
from enginebench.records.run_folder import open_run


def audit_claims(
    target: str | Path, *, hardware: str | None = None, routing: str = "even", prices: Prices | None = None
) -> Audit:  # fmt: skip
    """Judge every claim of a YAML file of published numbers, or every row of a run folder.

    hardware: of a run, what it ran on ('4xh100', 'cpu'); None: what its scenario states, else the accelerators that it recorded.
    routing: which experts are used, shown beside the bound: 'even', 'zipf:1.0', 'captured' (by `bench routing`) or a file of counts.
    prices: also what the rates cost.
    UserError for a file with mistakes (file, line and key), a run without throughput, and `hardware` with a file of claims.
    """
    path = Path(target)
    claims, physics = _of_run(path, hardware) if path.is_dir() else _of_file(path, hardware)
    physics = replace(physics, routing=_checked(routing))
    costs = _costs(claims, physics, prices) if prices is not None else {}
    return Audit(claims, judge_all(claims, physics), contradictions(claims, physics), costs, prices.currency if prices else "")


def _checked(routing: str) -> str:
    """UserError for a routing that no model can have: a mistake of the command, not of a claim."""
    if not routing.startswith(CAPTURED):
        model = next(each.model for each in models().values() if each.model.experts)
        try:
            read_popularity(routing, weigh(model, "f16"), model.name)
        except UserError as error:
            if error.key != "routing":
                raise
    return routing


def _of_file(file: Path, hardware: str | None) -> tuple[Claims, Physics]:
    if hardware is not None:
        raise UserError("--hardware is for a run: a claim names its own", advice="write it under `hardware` of the claim")
    return read_claims(file), Physics()


def _of_run(folder: Path, hardware: str | None) -> tuple[Claims, Physics]:
    """The rows of a run, with the weights of its own checkpoints where these are local."""
    if hardware is not None and hardware != ANYTHING and not is_cpu(hardware):
        read_machine(hardware)  # a mistake of the command, not of a claim
    run = open_run(folder)
    analysis = analyse(run)
    deployments = {(row.deployment.model, row.deployment.precision): row.deployment for row in analysis.rows}
    found = {key: weights_of(*key, each.checkpoint, gguf=each.engine in GGUF_ENGINES) for key, each in deployments.items()}
    own = {key: weights for key, weights in found.items() if weights is not None}
    references = {model: each.checkpoint for (model, _), each in deployments.items()}
    hardware = hardware_of_run(run.record.machine, hardware, run.record.scenario.get("hardware"))
    return claims_of(analysis, hardware), Physics(own, references=references)


def _costs(claims: Claims, physics: Physics, prices: Prices) -> dict[str, Cost]:
    """What the claimed rates cost, by id of the claim; only claims with known hardware and price."""
    found: dict[str, Cost] = {}
    for claim in claims.serving:
        if claim.rates is None or claim.hardware is None:
            continue
        try:
            name, count = physics.device(claim.hardware)
        except UserError:
            continue  # the finding says that the hardware is unknown
        bandwidth = physics.bandwidth_gb_s(claim.hardware) / count
        priced = cost(claim.rates[1], name, count, prices, bandwidth_gb_s=bandwidth)
        if priced.per_million_tokens is not None or priced.joules_per_token is not None:
            found[claim.id] = priced
    return found


def claims_of(analysis: Analysis, hardware: str | None) -> Claims:
    """The rows of a run as claims. UserError if no row has a throughput.

    hardware: for example '4xh100', reduced to the number of devices that a row used; None: unknown.
    """
    rows = [row for row in analysis.rows if row.status == "ok" and row.figures.get("output_throughput") is not None]
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
        id=f"row-{number}", source="run", says=f"{row.name}, {load.level_text}, {load.shape_text}", engine=deployment.engine,
        model=deployment.model, precision=deployment.precision, hardware=_used_hardware(row, hardware), **vars(parallelism),
        options=dict(deployment.options), concurrency=load.streams, isl=_tokens(row, "isl_p50"), osl=_tokens(row, "osl_p50"),
        output_tok_s=_value(row, "output_throughput"),
    )  # fmt: skip


def _used_hardware(row: Row, hardware: str | None) -> str | None:
    """The devices that the row used, if the run recorded their number."""
    gpus = row.cells[0].record.traits.gpus
    if hardware is None or gpus is None or _is_cpu(hardware):
        return hardware
    try:
        return with_count(hardware, gpus)
    except UserError:
        return hardware  # the finding says that it is unknown


def _is_cpu(hardware: str | None) -> bool:
    """Whether the deployment ran on this CPU, where all ranks share one memory."""
    try:
        return hardware is not None and is_cpu(hardware)
    except UserError:
        return False  # the finding says that it is unknown


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
