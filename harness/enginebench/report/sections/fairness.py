"""The section on fairness: a table with the same settings for every deployment of a run, and a sentence for each asymmetry.

Compares what was requested (deployment, load) with what the engine reported (the launch record). An asymmetry is a setting in which two
*engines* differ; a setting that the scenario varies within an engine is not one. Judges no figure and does not know markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis, CellResult, Row
from enginebench.domain import JSON, canonical, fingerprint, plain
from enginebench.domain.formatting import counted, stored
from enginebench.records.launch import LaunchRecord
from enginebench.report.blocks import Block, Bullets, Cell, Folded, Paragraph, Table
from enginebench.report.section import Context, Section, measurements

NOT_REPORTED = "not reported"


ASPECTS = {
    "version": ("version", ""),
    "runtime": ("runtime", "an in-process batch has no server overhead"),
    "precision": ("precision", "they do not do the same computation"),
    "kv_dtype": ("KV dtype", "a smaller type reads less memory per token and leaves room for more requests"),
    "prefix_cache": ("prefix cache", "keeping prompts costs memory and time, and hits save the prefill"),
    "cold": ("prefix cache was cold", ""),
    "chunked_prefill": ("chunked prefill", "it trades time to first token for steadier gaps"),
    "slots": ("max batch", "requests beyond it wait"),
    "batch_tokens": ("tokens in one pass", "it trades time to first token for steadier gaps"),
    "graphs": ("device graphs", "without them every step has the overhead of its kernel launches"),
    "stream_interval": ("tokens in one event", "TTFT, TPOT and ITL describe different deliveries"),
    "context": ("context", ""),
    "kv_tokens": ("KV tokens", ""),
    "length_control": ("output length", "if it is only a limit, fewer tokens than requested may be generated"),
    "prompt_form": ("prompts as", "if they are text, the server has to tokenize them"),
    "weights": ("weights", "a random router uses its experts differently from a trained one"),
    "gpus": ("GPUs", "throughput is not per device"),
}
"""Key of a setting -> its label, and the effect of an asymmetry on the comparison; empty: none by itself."""
_SPELLINGS = {"fp16": "f16", "float16": "f16", "half": "f16", "bfloat16": "bf16", "float32": "f32", "fp32": "f32"}


@dataclass(frozen=True)
class Fact:
    asked: JSON = None
    """The requested value; None: not requested."""
    got: JSON = None
    """The value that the engine reported; None: not reported."""
    differs: bool = False
    """Whether the engine reported a value that it should not have."""

    @property
    def known(self) -> JSON:
        return self.asked if self.got is None else self.got

    @property
    def text(self) -> str:
        """'q8_0'; '8 (requested: 16)'; 'q8_0 requested, not reported'; 'not reported'."""
        if self.got is None:
            return NOT_REPORTED if self.asked is None else f"{stored(self.asked)} requested, {NOT_REPORTED}"
        return f"{stored(self.got)} (requested: {stored(self.asked)})" if self.differs else stored(self.got)


@dataclass(frozen=True)
class Column:
    name: str
    model: str
    engine: str
    facts: Mapping[str, Fact]
    notes: tuple[str, ...]
    """Approximations that the adapter made."""


@dataclass(frozen=True)
class Card:
    columns: tuple[Column, ...]
    rows: tuple[str, ...]
    """The keys of the aspects that are known for any deployment."""
    asymmetries: tuple[str, ...]


def fairness(analysis: Analysis) -> Card:
    """The card of every deployment that ran, in the order of the run."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in analysis.rows:
        if row.status == "ok":
            groups.setdefault((row.deployment.model, row.name), []).append(row)
    columns = tuple(_column(rows, analysis) for rows in groups.values())
    rows = tuple(aspect for aspect in ASPECTS if any(column.facts[aspect].known is not None for column in columns))
    return Card(columns, rows, tuple(_asymmetries(columns)))


# -- facts ---------------------------------------------------------------------------------------------------------------


def _column(rows: Sequence[Row], analysis: Analysis) -> Column:
    deployment = rows[0].deployment
    cells = [cell for row in rows for cell in row.cells if cell.ran]
    key = fingerprint(canonical(deployment))
    starts = [launch for launch in analysis.launches.values() if fingerprint(canonical(launch.deployment)) == key]
    launches = [launch for launch in starts if launch.startup.command or launch.configuration.resolved]
    wrong = {difference.name for launch in launches for difference in launch.configuration.differences}
    facts = {
        **{name: Fact(asked, _reported(launches, name), name in wrong) for name, asked in _asked(rows).items()},
        "version": Fact(got=" / ".join(dict.fromkeys(launch.version for launch in launches if launch.version)) or None),
        "runtime": Fact(got=deployment.runtime),
        "cold": Fact(got=_cold(cells)),
        **_of_cells(cells, analysis),
    }
    return Column(rows[0].name, deployment.model, deployment.engine, facts, launches[0].startup.notes if launches else ())


def _asked(rows: Sequence[Row]) -> dict[str, JSON]:
    """What the deployment requests, under the names of `Resolved`: neutral keys, and options of the same name."""
    deployment = rows[0].deployment
    options = ("kv_dtype", "prefix_cache", "chunked_prefill", "batch_tokens", "graphs", "stream_interval", "kv_tokens")
    precision = None if deployment.precision in ("none", "unstated") else deployment.precision
    neutral: dict[str, JSON] = {"precision": precision, "slots": deployment.max_concurrency, "context": deployment.max_context}
    return neutral | {name: deployment.options.get(name) for name in options}


def _reported(launches: Sequence[LaunchRecord], name: str) -> JSON:
    """What the engine reported at its starts; if the values differ, each value once."""
    values = dict.fromkeys(
        value for launch in launches if isinstance(value := launch.configuration.resolved.get(name), str | int | float | bool)
    )
    return next(iter(values)) if len(values) == 1 else " / ".join(map(stored, values)) or None


def _cold(cells: Sequence[CellResult]) -> str | None:
    """The evidence that nothing came from a prefix cache, over the cells that require a cold one."""
    proofs = dict.fromkeys(cell.cache for cell in cells if cell.record.load.prefix_cache == "cold")
    hits = [proof for proof in proofs if proof.cached]
    return "; ".join(dict.fromkeys(proof.text for proof in hits or proofs)) or ("allowed to be warm" if cells else None)


def _of_cells(cells: Sequence[CellResult], analysis: Analysis) -> dict[str, Fact]:
    """Traits of the adapter, as recorded in its cells; older records lack some."""
    record = cells[0].record
    gpus = 0 if analysis.run.machine.get("gpus") == [] and record.deployment.runtime != "attach" else record.traits.gpus
    forced = ", routing forced" if record.traits.forced_routing else ""
    return {
        "length_control": Fact(got=record.traits.length_control),
        "prompt_form": Fact(got=record.prompts.form or None),
        "weights": Fact(got=f"random{forced}" if record.traits.random_weights else "from the checkpoint"),
        "gpus": Fact(got=gpus),
    }


# -- asymmetries ---------------------------------------------------------------------------------------------------------


def _asymmetries(columns: Sequence[Column]) -> Iterator[str]:
    """Each sentence once, with the names of the models unless it holds for all compared models."""
    models = {model: list(_of_model([c for c in columns if c.model == model])) for model in dict.fromkeys(c.model for c in columns)}
    compared = [model for model in models if len({c.engine for c in columns if c.model == model}) > 1]
    for sentence in dict.fromkeys(sentence for found in models.values() for sentence in found):
        concerned = [model for model in compared if sentence in models[model]]
        yield sentence if concerned == compared else f"{', '.join(concerned)}: {sentence}"


def _of_model(columns: Sequence[Column]) -> Iterator[str]:
    """Aspects in which the engines of one model differ; an unknown value is not a difference."""
    for aspect, (label, matters) in ASPECTS.items():
        by_engine: dict[str, set[str]] = {}
        for column in columns:
            if (value := column.facts[aspect].known) is not None:
                by_engine.setdefault(column.engine, set()).add(_comparable(aspect, value))
        if matters and len(set(map(frozenset, by_engine.values()))) > 1:
            yield f"{label}: {'; '.join(_values(aspect, columns))}; {matters}"


def _comparable(aspect: str, value: JSON) -> str:
    text = stored(value).lower()
    if aspect == "graphs":
        return "off" if text == "off" else "on"  # engines name the modes differently
    if aspect == "runtime":
        return "in-process" if text == "in-process" else "served"
    return _SPELLINGS.get(text, text)


def _values(aspect: str, columns: Iterable[Column]) -> Iterator[str]:
    """'on for vllm', 'off for llamacpp': each value with its engines."""
    engines_by_value: dict[str, dict[str, None]] = {}
    for column in columns:
        if (value := column.facts[aspect].known) is not None:
            engines_by_value.setdefault(stored(value), {})[column.engine] = None
    for value_text, engines in engines_by_value.items():
        yield f"{value_text} for {' and '.join(engines)}"


# -- section -------------------------------------------------------------------------------------------------------------


def _blocks(context: Context) -> Iterator[Block]:
    card = fairness(context.analysis)
    differing = [aspect for aspect in card.rows if _differing(card, aspect)]
    same = [aspect for aspect in card.rows if aspect not in differing]
    yield Paragraph(
        "What differs between deployments: as the engine reported it, and as requested where that differs. An asymmetry is a setting in "
        "which two engines differ."
    )
    if card.asymmetries:
        yield Bullets(card.asymmetries)
    notes = any(column.notes for column in card.columns)
    if differing or notes:
        yield _table(card, differing, context, notes=notes)
    if same:
        values = tuple((ASPECTS[aspect][0], card.columns[0].facts[aspect].text) for aspect in same)
        table = Table(("setting", "all deployments"), values, css="card")
        yield Folded(f"{counted(len(same), 'setting')} the same for all", (table,))


def _differing(card: Card, aspect: str) -> bool:
    """Whether two deployments differ in an aspect, or one reported what it should not have."""
    facts = [column.facts[aspect] for column in card.columns]
    return len({fact.text for fact in facts}) > 1 or any(fact.differs for fact in facts)


def _table(card: Card, aspects: Sequence[str], context: Context, *, notes: bool) -> Table:
    """A row for each setting, or for each deployment where there are so many that a row would not fit."""
    several = len(context.models) > 1
    names = [Cell(column.name, column.model if several else "") for column in card.columns]
    rows = [[_cell(column.facts[aspect]) for column in card.columns] for aspect in aspects]
    heads: list[str | Cell] = [ASPECTS[aspect][0] for aspect in aspects]
    if notes:
        rows.append([Cell("; ".join(column.notes) or "\N{EN DASH}") for column in card.columns])
        heads.append("approximations")
    if len(names) <= _MOST_COLUMNS:
        return Table(("setting", *names), tuple((head, *row) for head, row in zip(heads, rows, strict=True)), css="card")
    turned = zip(names, *rows, strict=True)
    return Table(("deployment", *heads), tuple(tuple(row) for row in turned), css="card")


_MOST_COLUMNS = 6


def _cell(fact: Fact) -> Cell:
    return Cell(fact.text, css="differs" if fact.differs else "quiet" if fact.got is None else "")


def _notes(analysis: Analysis) -> Iterator[str]:
    yield from (f"fairness: {asymmetry}" for asymmetry in fairness(analysis).asymmetries)


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    """Per deployment: each aspect with the requested and the reported value, and whether they differ."""
    card = fairness(analysis)
    deployments: list[JSON] = [
        {
            "deployment": column.name,
            "model": column.model,
            "engine": column.engine,
            "facts": {name: plain(fact) for name, fact in column.facts.items()},
            "notes": list(column.notes),
        }
        for column in card.columns
    ]
    return {"fairness": {"asymmetries": list(card.asymmetries), "deployments": deployments}}


SECTION = Section("fairness", "Fairness", _blocks, needs=(measurements,), notes=_notes, data=_data)
