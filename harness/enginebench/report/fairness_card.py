"""The fairness card: the same settings for every deployment of a run, and a sentence for each asymmetry.

Compares what was requested (deployment, load) with what the engine reported (the launch record). An asymmetry is a setting in which two
*engines* differ; a setting that the scenario varies within an engine is not one. Judges no figure and does not know markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis, CellResult, Row
from enginebench.domain import JSON, canonical, fingerprint
from enginebench.domain.formatting import stored
from enginebench.records.launch import LaunchRecord

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
