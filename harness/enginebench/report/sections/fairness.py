"""The fairness card: one table in which every deployment of a run answers the same questions, and a sentence for each asymmetry.

Reads what was asked (deployment, load) and what the engine says it has (the launch record). An asymmetry is a fact in which two
*engines* differ; what the scenario varies within one engine is its question, not a flaw. Judges no figure and knows no output's syntax.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis, CellResult, Row
from enginebench.domain import JSON, canonical, fingerprint
from enginebench.records.launch import LaunchRecord

UNTOLD = "not told"


@dataclass(frozen=True)
class Aspect:
    """One question of the card. matters: what an asymmetry does to the comparison; empty: it does nothing by itself."""

    key: str
    label: str
    matters: str = ""


ASPECTS = (
    Aspect("version", "version"),
    Aspect("runtime", "runtime", "a batch in-process pays for no server"),
    Aspect("precision", "precision", "they do not compute the same"),
    Aspect("kv_dtype", "KV dtype", "a smaller one reads less memory per token and holds more requests"),
    Aspect("prefix_cache", "prefix cache", "keeping prompts costs memory and time, and hits save the prefill"),
    Aspect("cold", "prefix cache was cold"),
    Aspect("chunked_prefill", "chunked prefill", "it trades time to first token for steadier gaps"),
    Aspect("slots", "max batch", "requests beyond it wait"),
    Aspect("batch_tokens", "tokens in one pass", "it trades time to first token for steadier gaps"),
    Aspect("graphs", "device graphs", "without them every step pays for its kernel launches"),
    Aspect("stream_interval", "tokens in one event", "TTFT, TPOT and ITL describe different deliveries"),
    Aspect("context", "context"),
    Aspect("kv_tokens", "KV tokens"),
    Aspect("length_control", "output length", "where it is a cap, fewer tokens may be generated than asked for"),
    Aspect("prompt_form", "prompts as", "where it is text, the server pays for tokenizing it"),
    Aspect("weights", "weights", "a random router loads its experts as no trained one does"),
    Aspect("gpus", "GPUs", "throughput is not per device"),
)
_SPELLINGS = {"fp16": "f16", "float16": "f16", "half": "f16", "bfloat16": "bf16", "float32": "f32", "fp32": "f32"}
"""Names for the same number format."""


@dataclass(frozen=True)
class Fact:
    """One answer: what was asked (None: nothing) and what the engine says it has (None: it does not say). differs: and it should not."""

    asked: JSON = None
    got: JSON = None
    differs: bool = False

    @property
    def known(self) -> JSON:
        """What holds, as far as anybody knows: the engine's word, else what was asked."""
        return self.asked if self.got is None else self.got

    @property
    def text(self) -> str:
        """'q8_0'; '8 (asked for 16)'; 'q8_0 asked for, not told'; 'not told'."""
        if self.got is None:
            return UNTOLD if self.asked is None else f"{said(self.asked)} asked for, {UNTOLD}"
        return f"{said(self.got)} (asked for {said(self.asked)})" if self.differs else said(self.got)


@dataclass(frozen=True)
class Column:
    """One deployment's answers, aspect key -> fact. notes: the approximations its adapter made."""

    name: str
    model: str
    engine: str
    facts: Mapping[str, Fact]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """The card of a run. rows: the aspects that any engine knows; asymmetries: a sentence each."""

    columns: tuple[Column, ...]
    rows: tuple[Aspect, ...]
    asymmetries: tuple[str, ...]


def fairness(analysis: Analysis) -> Card:
    """The card of every deployment that ran, in the order of the run."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in analysis.rows:
        if row.status == "ok":
            groups.setdefault((row.deployment.model, row.name), []).append(row)
    columns = tuple(_column(rows, analysis) for rows in groups.values())
    rows = tuple(aspect for aspect in ASPECTS if any(column.facts[aspect.key].known is not None for column in columns))
    return Card(columns, rows, tuple(_asymmetries(columns)))


def said(value: JSON) -> str:
    """A fact as text: 'on', 'off', '4,096', 'f16'."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else str(value)


# -- facts ---------------------------------------------------------------------------------------------------------------


def _column(rows: Sequence[Row], analysis: Analysis) -> Column:
    deployment = rows[0].deployment
    cells = [cell for row in rows for cell in row.cells if cell.ran]
    key = fingerprint(canonical(deployment))
    starts = [launch for launch in analysis.launches.values() if fingerprint(canonical(launch.deployment)) == key]
    launches = [launch for launch in starts if launch.startup.command or launch.configuration.resolved]
    wrong = {difference.name for launch in launches for difference in launch.configuration.differences}
    facts = {
        **{name: Fact(asked, _told(launches, name), name in wrong) for name, asked in _asked(rows).items()},
        "version": Fact(got=" / ".join(dict.fromkeys(launch.version for launch in launches if launch.version)) or None),
        "runtime": Fact(got=deployment.runtime),
        "cold": Fact(got=_cold(cells)),
        **_of_cells(cells, analysis),
    }
    return Column(rows[0].name, deployment.model, deployment.engine, facts, launches[0].startup.notes if launches else ())


def _asked(rows: Sequence[Row]) -> dict[str, JSON]:
    """What the deployment asks for under the names of `Resolved`: neutral keys, and options of the same name."""
    deployment = rows[0].deployment
    told = ("kv_dtype", "prefix_cache", "chunked_prefill", "batch_tokens", "graphs", "stream_interval", "kv_tokens")
    precision = None if deployment.precision in ("none", "unstated") else deployment.precision
    neutral: dict[str, JSON] = {"precision": precision, "slots": deployment.max_concurrency, "context": deployment.max_context}
    return neutral | {name: deployment.options.get(name) for name in told}


def _told(launches: Sequence[LaunchRecord], name: str) -> JSON:
    """What the engine's starts say; where they differ, each answer once."""
    values = dict.fromkeys(
        value for launch in launches if isinstance(value := launch.configuration.resolved.get(name), str | int | float | bool)
    )
    return next(iter(values)) if len(values) == 1 else " / ".join(map(said, values)) or None


def _cold(cells: Sequence[CellResult]) -> str | None:
    """How it is known that nothing came from a prefix cache, over the cells in which nothing was to."""
    proofs = dict.fromkeys(cell.cache for cell in cells if cell.record.load.prefix_cache == "cold")
    hits = [proof for proof in proofs if proof.cached]
    return "; ".join(dict.fromkeys(proof.text for proof in hits or proofs)) or ("allowed to be warm" if cells else None)


def _of_cells(cells: Sequence[CellResult], analysis: Analysis) -> dict[str, Fact]:
    """What the adapter says, as its cells recorded it; older records lack some of it."""
    record = cells[0].record
    gpus = 0 if analysis.run.machine.get("gpus") == [] and record.deployment.runtime != "attach" else record.traits.gpus
    forced = ", routing forced" if record.traits.forced_routing else ""
    return {
        "length_control": Fact(got=record.traits.length_control),
        "prompt_form": Fact(got=record.prompts.form or None),
        "weights": Fact(got=f"random{forced}" if record.traits.random_weights else "as the checkpoint has them"),
        "gpus": Fact(got=gpus),
    }


# -- asymmetries ---------------------------------------------------------------------------------------------------------


def _asymmetries(columns: Sequence[Column]) -> Iterator[str]:
    """Each sentence once; with the model's name where not every compared model deserves it."""
    models = {model: list(_of_model([c for c in columns if c.model == model])) for model in dict.fromkeys(c.model for c in columns)}
    compared = [model for model in models if len({c.engine for c in columns if c.model == model}) > 1]
    for sentence in dict.fromkeys(sentence for found in models.values() for sentence in found):
        whose = [model for model in compared if sentence in models[model]]
        yield sentence if whose == compared else f"{', '.join(whose)}: {sentence}"


def _of_model(columns: Sequence[Column]) -> Iterator[str]:
    """Aspects in which the engines of one model differ; an engine that does not say is no evidence."""
    for aspect in ASPECTS:
        by_engine: dict[str, set[str]] = {}
        for column in columns:
            if (value := column.facts[aspect.key].known) is not None:
                by_engine.setdefault(column.engine, set()).add(_comparable(aspect, value))
        if aspect.matters and len(set(map(frozenset, by_engine.values()))) > 1:
            yield f"{aspect.label}: {'; '.join(_values(aspect, columns))}; {aspect.matters}"


def _comparable(aspect: Aspect, value: JSON) -> str:
    """The value with what is only another spelling taken out."""
    text = said(value).lower()
    if aspect.key == "graphs":
        return "off" if text == "off" else "on"  # every engine has its own words for how they are used
    if aspect.key == "runtime":
        return "in-process" if text == "in-process" else "served"
    return _SPELLINGS.get(text, text)


def _values(aspect: Aspect, columns: Iterable[Column]) -> Iterator[str]:
    """'on for vllm', 'off for llamacpp': every value once, with the engines that have it."""
    whose: dict[str, dict[str, None]] = {}
    for column in columns:
        value = column.facts[aspect.key].known
        if value is not None:
            whose.setdefault(said(value), {})[column.engine] = None
    for value_text, engines in whose.items():
        yield f"{value_text} for {' and '.join(engines)}"
