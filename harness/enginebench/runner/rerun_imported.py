"""Writes the scenario that measures again what another tool's file states: its engine, flags, load and lengths, ready for `bench run`."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from enginebench.analysis.rows import Row
from enginebench.domain import JSON
from enginebench.errors import UserError
from enginebench.records.importer import UNKNOWN_PRECISION

REPEATS = 3
_DOUBTFUL = ("suspect", "invalid")
_DEGREES = ("tp", "pp", "dp_replicas", "attention_dp", "ep")
_ABOUT = ("engine_version", "flags")
"""Facts that are stored as options and are none of an engine's."""


def scenario_of(rows: Sequence[Row], name: str, *, doubtful: bool) -> str:
    """The scenario as YAML. doubtful: only rows that are suspect or invalid. UserError where too little is stated, with what to add."""
    wanted = [row for row in rows if not doubtful or row.verdict in _DOUBTFUL]
    if not wanted:
        raise UserError(f"no row of {name} is doubtful, so nothing is to be measured again", advice="leave out --only doubtful")
    for row in wanted:
        _check(row)
    models: dict[str, JSON] = {}
    deployments: list[JSON] = []
    loads: list[JSON] = []
    for row in wanted:
        its = row.deployment
        checkpoints = models.setdefault(_model(row), {"checkpoints": {}})
        checkpoints["checkpoints"][its.precision] = its.checkpoint  # type: ignore[index,call-overload]  # made above
        for made, all_made in ((_deployment(row), deployments), (_load(row), loads)):
            if made not in all_made:
                all_made.append(made)
    data: dict[str, JSON] = {"name": f"{name}-again", "title": f"Measured again: {name}", "models": models}
    if hardware := next((told for row in wanted if (told := _told(row, "hardware"))), None):
        data["hardware"] = hardware
    data |= {"deployments": deployments, "loads": loads, "repeats": REPEATS}
    head = ["Written by `bench rerun` from another tool's file: the same engine, load and lengths."]
    head += [
        f"{fact.replace('_', ' ')}, as stated: {text}"
        for fact in _ABOUT
        if (text := next(filter(None, (_told(r, fact) for r in wanted)), None))
    ]
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True)


def _told(row: Row, fact: str) -> str | None:
    return next((cell.record.imported.told.get(fact) for cell in row.cells if cell.record.imported is not None), None)


def _check(row: Row) -> None:
    its = row.deployment
    lacking = [
        name
        for name, known in (
            ("engine", its.engine not in ("openai", "unknown")),
            ("precision", its.precision != UNKNOWN_PRECISION),
            ("model", its.model != "unknown"),
        )
        if not known
    ]
    if lacking:
        raise UserError(
            f"cannot be measured again: the {' and the '.join(lacking)} is not stated", advice=f"say it: --set {lacking[0]}=..."
        )


def _model(row: Row) -> str:
    return row.deployment.model.rpartition("/")[2]


def _deployment(row: Row) -> dict[str, JSON]:
    its = row.deployment
    degrees: dict[str, JSON] = {name: value for name in _DEGREES if (value := getattr(its.parallelism, name)) != 1}
    options: dict[str, JSON] = {name: value for name, value in its.options.items() if name not in _ABOUT}
    return {"engine": its.engine, "model": _model(row), "precision": its.precision} | degrees | ({"options": options} if options else {})


def _load(row: Row) -> dict[str, JSON]:
    """The load with its level; lengths that a file does not fix are the medians that were counted."""
    load = row.load
    made: dict[str, JSON] = {name: load.value(name) for name in load.level_fields if load.value(name) is not None}
    if load.open_loop and load.concurrency:
        made["concurrency"] = load.concurrency
    for name, figure in (("input_tokens", "isl_p50"), ("output_tokens", "osl_p50")):
        asked, counted = getattr(load, name), row.figures.get(figure)
        if isinstance(asked, int):
            made[name] = asked
        elif counted is not None and counted.value >= 1:
            made[name] = round(counted.value)
        else:
            raise UserError(f"cannot be measured again: {name} of {row.name} at {load.level_text} is neither stated nor counted")
    if load.requests:
        made["requests"] = load.requests
    return made | ({"api": load.api} if load.api != "completions" else {})
