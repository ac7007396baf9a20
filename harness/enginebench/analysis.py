"""From a stored run to what a person wants to know: one row per deployment and load, and a sentence that answers the question.

Repeats are folded into an estimate with an interval; verdicts and reasons are carried along. Reads records and samples, writes
nothing, and knows neither tables nor HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from enginebench.metrics import METRICS, Metric, itl, itl_is_exact
from enginebench.nouns import JSON, Deployment, Load, canonical, fingerprint, plain
from enginebench.samples import Samples
from enginebench.statistics import Estimate, estimate, percentile
from enginebench.store import CellRecord, LaunchRecord, Run, RunRecord
from enginebench.validity import Reason, Verdict, judge

PERCENTILES = (50.0, 90.0, 99.0)


@dataclass(frozen=True)
class CellResult:
    """One cell that was read back: its record, its figures ('ttft_p50', 'output_throughput', ...), and whether to trust them."""

    record: CellRecord
    figures: Mapping[str, float | None]
    verdict: Verdict | None
    reasons: tuple[Reason, ...] = ()
    itl_exact: bool = False


@dataclass(frozen=True)
class Row:
    """A deployment under a load, over its repeats. status: 'ok' when any repeat is, else 'failed' or 'skipped'.

    figures: name -> estimate over the repeats that are not invalid (over all of them when every one is). verdict: the worst
    of the repeats that ran; None when none did. labels: what distinguishes this row, column -> value. name: the shortest
    text that distinguishes the deployment from the others of its model, for tables and legends: 'vllm', or 'vllm fp8 tp=4'.
    """

    deployment: Deployment
    load: Load
    labels: Mapping[str, str]
    cells: tuple[CellResult, ...]
    status: str
    figures: Mapping[str, Estimate | None]
    verdict: Verdict | None
    reasons: tuple[str, ...]
    name: str

    @property
    def ranked(self) -> bool:
        """Whether this row may be compared with others: it ran and is not invalid."""
        return self.status == "ok" and self.verdict != "invalid"


@dataclass(frozen=True)
class Parity:
    """How far two deployments of the same model agree on the greedy output of the same prompts.

    agreed: for each prompt, how many leading characters are the same; length: how many there could be.
    """

    a: str
    b: str
    model: str
    agreed: tuple[int, ...]
    length: tuple[int, ...]

    @property
    def identical(self) -> int:
        """Number of prompts whose outputs are the same to the last character."""
        return sum(x == y for x, y in zip(self.agreed, self.length, strict=True))


@dataclass(frozen=True)
class Analysis:
    """A run, understood."""

    run: RunRecord
    rows: tuple[Row, ...]
    launches: Mapping[str, LaunchRecord]
    columns: tuple[str, ...]
    sentence: str
    parity: tuple[Parity, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know before he quotes a figure: random weights, engines that disagree, settings that did not take."""
        return tuple(dict.fromkeys(_remarks(self)))

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells by status, and of those not measured yet under 'missing'."""
        records = [cell.record for row in self.rows for cell in row.cells]
        out = {status: sum(r.status == status for r in records) for status in ("ok", "failed", "skipped")}
        return out | {"missing": len(self.run.cells) - len(records)}


LOAD_COLUMNS = tuple(field.name for field in fields(Load))
_IDENTITY = ("engine", "model", "precision")
_HIDDEN = (
    "checkpoint",
    "url",
    "api_key_env",
    "max_context",
    "max_concurrency",
    "warmup_requests",
    "timeout_s",
    "ready_timeout_s",
    "requests",
)
"""Shown only where two rows would look alike without them: they follow from what is shown, or are nobody's question."""


def analyse(run: Run) -> Analysis:
    """Read every stored cell of a run and fold the repeats."""
    cells = [_result(record, run.samples(record.id)) for record in run.cells()]
    groups: dict[str, list[CellResult]] = {}
    for cell in cells:
        key = fingerprint({"d": canonical(cell.record.deployment), "l": canonical(cell.record.load)})
        groups.setdefault(key, []).append(cell)
    flat = [_flat(group[0].record) for group in groups.values()]
    columns = _columns(flat)
    shown = [{c: labels.get(c, "") for c in columns} for labels in flat]
    rows = tuple(map(_row, groups.values(), shown, _names(shown)))
    launches = run.launches()
    return Analysis(run.record, rows, launches, columns, verdict_sentence(rows), tuple(_parities(rows, launches)))


def _result(record: CellRecord, samples: Samples | None) -> CellResult:
    if record.status != "ok" or samples is None:
        return CellResult(record, {}, None)
    verdict, reasons = judge(record, samples)
    return CellResult(record, figures_of(samples), verdict, reasons, itl_is_exact(samples))


def figures_of(samples: Samples) -> dict[str, float | None]:
    """Every figure of a cell: per-cell metrics under their name, per-request ones and the ITL as <name>_p50, _p90, _p99."""
    out: dict[str, float | None] = {}
    for metric in METRICS.values():
        values = metric.compute(samples)
        if metric.scope == "cell":
            out[metric.name] = None if values[0] != values[0] else float(values[0])
        else:
            out |= {f"{metric.name}_p{q:.0f}": percentile(values, q) for q in PERCENTILES}
    gaps = itl(samples)
    return out | {f"itl_p{q:.0f}": percentile(gaps, q) for q in PERCENTILES}


def metric_of(figure: str) -> Metric | None:
    """The metric behind a figure's name ('ttft_p50' -> TTFT)."""
    return METRICS.get(figure) or METRICS.get(figure.rpartition("_p")[0])


def _row(group: Sequence[CellResult], labels: Mapping[str, str], name: str) -> Row:
    ran = [cell for cell in group if cell.verdict is not None]
    usable = [cell for cell in ran if cell.verdict != "invalid"] or ran
    names = dict.fromkeys(name for cell in usable for name in cell.figures)
    figures = {name: estimate([cell.figures.get(name) for cell in usable]) for name in names}
    severities = {cell.verdict for cell in ran}
    verdict: Verdict | None = next((v for v in ("invalid", "suspect", "valid") if v in severities), None)
    if usable != ran and verdict == "invalid":
        verdict = "suspect"  # some repeats are usable, and only they were counted
    status = "ok" if ran else "failed" if any(c.record.status == "failed" for c in group) else "skipped"
    failures = [c.record.reason for c in group if c.record.status != "ok" and c.record.reason]
    reasons = dict.fromkeys([*(str(r) for c in ran for r in c.reasons), *failures])
    first = group[0].record
    return Row(first.deployment, first.load, labels, tuple(group), status, figures, verdict, tuple(reasons), name)


def _flat(record: CellRecord) -> dict[str, str]:
    """Every field of the deployment and the load as column -> text; options by their own names."""
    deployment: dict[str, Any] = dict(plain(record.deployment))  # type: ignore[arg-type]  # a dataclass becomes a dict
    options, spread, load = deployment.pop("options"), deployment.pop("parallelism"), plain(record.load)
    ours = {**deployment, **spread, **load}  # type: ignore[dict-item]
    named = {f"options.{name}" if name in ours else name: value for name, value in options.items()}  # an engine may have its own `seed`
    out: dict[str, JSON] = {**deployment, **spread, **named, **load}  # type: ignore[dict-item]
    return {name: _short(value) for name, value in out.items()}


def _short(value: JSON) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _columns(flat: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """The identity columns and whatever varies over the run: a table shows a column only if it says something."""
    names = dict.fromkeys(name for labels in flat for name in labels)
    varies = {name for name in names if len({labels.get(name, "") for labels in flat}) > 1}
    always = {*_IDENTITY, "concurrency", "input_tokens"}
    shown = [n for n in names if n in always or (n in varies and n not in _HIDDEN)]
    alike = len({tuple(labels.get(n, "") for n in shown) for labels in flat}) < len(flat)
    return tuple(n for n in names if n in varies | always) if alike else tuple(shown)


def _names(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """For each row: the deployment's label or engine, and what tells it from the deployments of the same model that share that."""
    heads = [labels.get("label") or labels["engine"] for labels in rows]
    out: list[str] = []
    for labels, head in zip(rows, heads, strict=True):
        peers = [other for other, its in zip(rows, heads, strict=True) if its == head and other["model"] == labels["model"]]
        differs = [c for c in labels if c not in (*LOAD_COLUMNS, "label") and len({peer[c] for peer in peers}) > 1]
        told = [labels[c] if c in _IDENTITY else f"{c}={labels[c]}" for c in differs if labels[c]]
        out.append(" ".join([head, *told]))
    return out


# -- the answer ----------------------------------------------------------------------------------------------------------


def verdict_sentence(rows: Sequence[Row]) -> str:
    """One sentence per model: which deployment is fastest at the heaviest common load, by how much, and whether that is sure."""
    models = dict.fromkeys(row.deployment.model for row in rows)
    said = {model: s for model in models if (s := _sentence(model, rows))}
    sentences = [f"{model}: {s}" if len(models) > 1 else s for model, s in said.items()]
    if sentences:
        return " ".join(sentences)
    ran = any(row.verdict == "invalid" for row in rows)
    return "Nothing can be ranked: every cell that ran is invalid, for the reasons given." if ran else "Nothing could be measured."


def _sentence(model: str, rows: Sequence[Row]) -> str | None:
    ranked = [row for row in rows if row.deployment.model == model and row.ranked and row.figures.get("output_throughput")]
    if not ranked:
        return None
    load = max((row.load for row in ranked), key=lambda at: (sum(r.load == at for r in ranked), at.concurrency, at.input_tokens))
    field = sorted((row for row in ranked if row.load == load), key=_throughput, reverse=True)
    best = field[0]
    where = f"at {load.concurrency} stream{'s' if load.concurrency > 1 else ''} of {load.input_tokens} + {load.output_tokens} tokens"
    figure = f"{_throughput(best):,.0f} tok/s"
    doubt = " With reservations: see the reasons of the rows marked suspect." if "suspect" in {r.verdict for r in field[:2]} else ""
    return _comparison(field, where, figure) + doubt


def _comparison(field: Sequence[Row], where: str, figure: str) -> str:
    best = field[0]
    if len(field) == 1:
        return f"{best.name} reaches {figure} {where}."
    second = field[1]
    ours, theirs = best.figures["output_throughput"], second.figures["output_throughput"]
    assert ours is not None and theirs is not None  # noqa: S101, PT018  # both rows were chosen for having one
    ratio = f"{ours.value / theirs.value:.2f}x"
    if ours.n < 2 or theirs.n < 2:
        return f"{best.name} is ahead {where}: {figure}, {ratio} {second.name} (one repeat: no interval, repeat before you rely on it)."
    if ours.overlaps(theirs):
        return f"{best.name} and {second.name} cannot be told apart {where} ({figure}, {ratio}, n={ours.n})."
    return f"{best.name} is fastest {where}: {figure}, {ratio} {second.name} (n={ours.n})."


def _throughput(row: Row) -> float:
    found = row.figures.get("output_throughput")
    return found.value if found else 0.0


def _parities(rows: Sequence[Row], launches: Mapping[str, LaunchRecord]) -> Iterator[Parity]:
    names = {fingerprint(canonical(row.deployment)): row.name for row in rows}
    first_last = sorted(launches.values(), key=lambda launch: -launch.repeat)  # of several starts the first one speaks
    told = {fingerprint(canonical(launch.deployment)): launch for launch in first_last if launch.parity}
    entries = [(key, told[key]) for key in names if key in told]
    for i, (key_a, a) in enumerate(entries):
        for key_b, b in entries[i + 1 :]:
            if a.deployment.model == b.deployment.model:
                yield _parity(names[key_a], names[key_b], a, b)


def _parity(name_a: str, name_b: str, a: LaunchRecord, b: LaunchRecord) -> Parity:
    pairs = [(str(x.get("output", "")), str(y.get("output", ""))) for x, y in zip(a.parity, b.parity, strict=False)]
    agreed = tuple(next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y))) for x, y in pairs)
    return Parity(name_a, name_b, a.deployment.model, agreed, tuple(max(len(x), len(y)) for x, y in pairs))


def _remarks(analysis: Analysis) -> Iterator[str]:
    for row in analysis.rows:
        if any(cell.record.random_weights for cell in row.cells):
            yield f"{row.deployment.model} has random weights: its speed is real, its text and its expert routing are not a trained model's"
    for parity in analysis.parity:
        same = f"{parity.identical} of {len(parity.length)} prompts"
        yield f"parity on {parity.model}: {parity.a} and {parity.b} gave the same greedy output for {same}"
    for launch in analysis.launches.values():
        for difference in launch.differences:
            asked, got = difference.get("asked"), difference.get("got")
            yield f"{launch.deployment.engine} was asked for {difference.get('name')} {asked} and says that it has {got}"
