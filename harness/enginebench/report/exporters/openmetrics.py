"""OpenMetrics 1.0 text, which Prometheus and its tools read: a gauge per metric, in base units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from enginebench.analysis.rows import Row
from enginebench.domain.formatting import printable
from enginebench.metrics.registry import find
from enginebench.report.exporter import File, Material, exporter

_UNITS: Mapping[str, str] = {
    "s": "seconds", "tok": "tokens", "tok/s": "tokens_per_second", "req/s": "requests_per_second", "1": "ratio", "B": "bytes", "W": "watts",
    "J/tok": "joules_per_token", "°C": "celsius",
}  # fmt: skip
"""Our units as the last words of a name, as the specification wants them."""


@exporter(
    "openmetrics", "OpenMetrics text",
    read_by="Prometheus (textfile collector, promtool), VictoriaMetrics, OpenTelemetry",
    definitions={
        "enginebench_<metric>_<unit>": "the median over the repeats, as in docs/metrics.md; `percentile` is of the requests of each repeat",
        "bound": "`low` and `high`: the interval over the repeats",
        "enginebench_row_info": "status and verdict of the row",
    },
    left_out={"requests and repeats": "a time series per request is not what a metrics server is for"},
)  # fmt: skip
def openmetrics(run: Material) -> Iterator[File]:
    """A gauge with a value per row, labelled by deployment and load."""
    families: dict[str, tuple[str, str, list[str]]] = {}
    for row in run.analysis.rows:
        labels = _labels(run, row)
        for figure, found in row.figures.items():
            if found is None or (known := find(figure)) is None:
                continue
            metric, percentile = known
            unit = _UNITS.get(metric.unit) or re.sub(r"[^a-z0-9]+", "_", metric.unit.lower().replace("/", "_per_")).strip("_")
            name = f"enginebench_{metric.name}" + (f"_{unit}" if unit and not metric.name.endswith(unit) else "")
            lines = families.setdefault(name, (metric.title, unit, []))[2]
            its = labels | ({} if percentile is None else {"percentile": f"{percentile:g}"})
            lines.append(_line(name, its, found.value))
            lines += [_line(name, its | {"bound": end}, v) for end, v in (("low", found.low), ("high", found.high)) if v is not None]
    out: list[str] = []
    for name, (title, unit, lines) in sorted(families.items()):
        out += [f"# TYPE {name} gauge", *([f"# UNIT {name} {unit}"] if unit and name.endswith(f"_{unit}") else [])]
        out += [f"# HELP {name} {_escaped(title)}", *lines]
    out += ["# TYPE enginebench_row info", "# HELP enginebench_row Status and verdict of each row"]
    out += [
        _line("enginebench_row_info", _labels(run, row) | {"status": row.status, "verdict": row.verdict}, 1) for row in run.analysis.rows
    ]
    yield "run.prom", ("\n".join([*out, "# EOF"]) + "\n").encode()


def _labels(run: Material, row: Row) -> dict[str, str]:
    deployment = row.deployment
    named = {
        "run": run.analysis.run.name, "deployment": row.name, "engine": deployment.engine, "model": deployment.model,
        "precision": deployment.known_precision, "load": row.load.level_text, "shape": row.load.shape_text,
    }  # fmt: skip
    varies = {re.sub(r"[^A-Za-z0-9_]", "_", name): value for name, value in row.labels.items() if value}
    return {**{name: value for name, value in varies.items() if name[0].isalpha() and name not in ("status", "verdict")}, **named}


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items() if text)
    return f"{name}{{{inside}}} {float(value)!r}"


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
