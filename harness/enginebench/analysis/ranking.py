"""What the rows of a run say: which deployment is best and how surely, and whether deployments agree.

Pure: rows and launch records in, sentences out. A claim is never stronger than the test behind it. Knows no table and no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from enginebench.analysis.rows import Row
from enginebench.domain import JSON, Load, canonical, fingerprint
from enginebench.metrics.statistics import Comparison, Estimate, compare, repeats_needed
from enginebench.records.store import LaunchRecord

_NAMED = 3
"""More deployments than this are counted in a sentence, not listed."""

# -- who is best ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """A row that may be ranked, with the figure that ranks it, and what the leader is against it (None for the leader itself)."""

    row: Row
    value: Estimate
    behind: Comparison | None


def ranked_by(rows: Sequence[Row]) -> Literal["goodput", "output_throughput"]:
    """The figure that ranks rows: goodput where an SLO gives any of them one, else output throughput."""
    return "goodput" if any(row.ranked and row.figures.get("goodput") for row in rows) else "output_throughput"


def contenders(rows: Sequence[Row]) -> list[Contender]:
    """The rows of one load that may be ranked, best first, each compared with the first: the one rule of sentence and marks."""
    figure = ranked_by(rows)
    found = [(row, estimate) for row in rows if row.ranked and (estimate := row.figures.get(figure))]
    found.sort(key=lambda pair: pair[1].value, reverse=True)
    return [Contender(row, its, compare(found[0][1], its) if i else None) for i, (row, its) in enumerate(found)]


def verdict_sentence(rows: Sequence[Row]) -> str:
    """One sentence per model: which deployment is best at the heaviest common load, by how much, and whether that is sure.

    Best is the highest output throughput; with an SLO the highest goodput, at the common load where that is highest.
    """
    models = dict.fromkeys(row.deployment.model for row in rows)
    said = {model: s for model in models if (s := _sentence(model, rows) or _unranked(model, rows))}
    sentences = [f"{model}: {s}" if len(models) > 1 else s for model, s in said.items()]
    if sentences:
        return " ".join(sentences)
    ran = any(row.verdict == "invalid" for row in rows)
    return "Nothing can be ranked: every cell that ran is invalid, for the reasons given." if ran else "Nothing could be measured."


def _sentence(model: str, rows: Sequence[Row]) -> str | None:
    groups: dict[Load, list[Row]] = {}
    mine = [row for row in rows if row.deployment.model == model]
    figure = ranked_by(mine)
    for row in mine:
        if row.ranked and row.figures.get(figure):
            groups.setdefault(row.load, []).append(row)
    if not groups:
        return None
    load = max(groups, key=lambda at: (len(groups[at]), *_weight(at, contenders(groups[at])[0].value, figure)))
    field = contenders(groups[load])
    suspect = any(contender.row.verdict == "suspect" for contender in field)
    said = _comparison(field, figure, f"at {load.level_text} of {load.shape_text}")
    return said + (" With reservations: see the reasons of the rows marked suspect." if suspect else "")


def _unranked(model: str, rows: Sequence[Row]) -> str | None:
    """What a model's deployments reached that must not be ranked, in the order of the scenario, and why they are not."""
    mine = [row for row in rows if row.deployment.model == model and row.sound and row.figures.get("output_throughput")]
    if not mine:
        return None
    counts = Counter(row.load for row in mine)
    load = max(counts, key=lambda at: (counts[at], *_weight(at, _throughput(mine[0]), "output_throughput")))
    here = [row for row in mine if row.load == load]
    values = [_throughput(row).value for row in here]
    if len(here) <= _NAMED:
        reached = ", ".join(f"{row.name} {value:,.0f} tok/s" for row, value in zip(here, values, strict=True))
    else:
        reached = f"{len(here)} deployments {min(values):,.0f} to {max(values):,.0f} tok/s"
    why = "its weights are random and nothing forces their routing"
    return f"measured at {load.level_text} of {load.shape_text}: {reached}; not ranked, because {why}."


def _throughput(row: Row) -> Estimate:
    found = row.figures["output_throughput"]
    assert found is not None  # noqa: S101  # its callers have looked
    return found


def _weight(load: Load, best: Estimate, figure: str) -> tuple[float, float]:
    """Which of two loads is the one to speak of: by goodput the better served, by throughput the heavier, then the longer."""
    length = load.input_tokens if isinstance(load.input_tokens, int) else 0
    return (best.value, load.level) if figure == "goodput" else (load.level, length)


def _comparison(field: Sequence[Contender], by_figure: str, where: str) -> str:
    """The weakest comparison of the leader rules: he is best only if he is surely better than every other."""
    best, *others = field
    name, good = best.row.name, by_figure == "goodput"
    figure = f"{_short(best.value.value)} req/s within the SLO" if good else f"{best.value.value:,.0f} tok/s"
    if not others:
        return f"{name} reaches {figure} {where}."
    second = others[0].value.value
    lead = f"{figure}, {f'{best.value.value / second:.2f}x {others[0].row.name}' if second else f'{others[0].row.name} none'}"
    by = {order: [c for c in others if c.behind and c.behind.order == order] for order in ("tied", "unknown", "ahead")}
    if tied := by["tied"]:
        names = [name, *(c.row.name for c in tied)]
        who = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) <= _NAMED + 1 else f"{name} and {len(tied)} others"
        return f"{who} cannot be told apart {where} ({figure}; {_evidence(best, tied)})."
    if by["unknown"]:
        return f"{name} is ahead {where}: {lead} (one repeat: no interval, repeat before you rely on it)."
    if ahead := by["ahead"]:
        enough = f"{repeats_needed()} restarts each would do"
        few = f"{_n_text([best, *ahead])} is too few to be sure ({_p_text(ahead)}; {enough})"
        return f"{name} is ahead in every repeat {where}: {lead}, but {few}."
    return f"{name} {'has the highest goodput' if good else 'is fastest'} {where}: {lead} ({_evidence(best, others)})."


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _evidence(best: Contender, others: Sequence[Contender]) -> str:
    return f"{_p_text(others)}, {_n_text([best, *others])}"


def _n_text(involved: Sequence[Contender]) -> str:
    low, high = min(c.value.n for c in involved), max(c.value.n for c in involved)
    return f"n={low}" if low == high else f"n={low} to {high}"


def _p_text(others: Sequence[Contender]) -> str:
    """The p of the exact test; of several, the one that supports the claim least."""
    known = [c.behind.p for c in others if c.behind and c.behind.p is not None]
    tied = any(c.behind and c.behind.order == "tied" for c in others)
    p = min(known) if tied else max(known)  # the least support for 'cannot be told apart' is the smallest p
    return "p<0.001" if p < 0.001 else f"p={p:.3f}" if p < 0.0995 else f"p={p:.2f}"


# -- whether they agree --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parity:
    """How far two deployments of the same model agree on the greedy output of the same prompts.

    agreed: for each prompt that could be compared, how many leading characters are the same; length: how many there could be.
    prompts: how many there were; incomparable: why some were left out.
    """

    a: str
    b: str
    model: str
    agreed: tuple[int, ...]
    length: tuple[int, ...]
    prompts: int
    incomparable: tuple[str, ...] = ()

    @property
    def identical(self) -> int:
        """Number of compared prompts whose outputs are the same to the last character, spaces before the first aside."""
        return sum(x == y for x, y in zip(self.agreed, self.length, strict=True))

    @property
    def summary(self) -> str:
        """'2 of 3 prompts; 1 not comparable: the prompts differ'."""
        compared, left = len(self.agreed), self.prompts - len(self.agreed)
        same = [f"{self.identical} of {compared} prompt{'s' if compared != 1 else ''}"] if compared else []
        return "; ".join([*same, *([f"{left} not comparable: {', '.join(self.incomparable)}"] if left else [])])


def parities(rows: Sequence[Row], launches: Mapping[str, LaunchRecord]) -> Iterator[Parity]:
    """Every pair of deployments of the same model whose outputs were kept."""
    names = {fingerprint(canonical(row.deployment)): row.name for row in rows}
    first_last = sorted(launches.values(), key=lambda launch: -launch.repeat)  # of several starts the first one speaks
    told = {fingerprint(canonical(launch.deployment)): launch for launch in first_last if launch.parity}
    entries = [(key, told[key]) for key in names if key in told]
    for i, (key_a, a) in enumerate(entries):
        for key_b, b in entries[i + 1 :]:
            if a.deployment.model == b.deployment.model:
                yield _parity(names[key_a], names[key_b], a, b)


def _parity(name_a: str, name_b: str, a: LaunchRecord, b: LaunchRecord) -> Parity:
    agreed: list[int] = []
    length: list[int] = []
    reasons: dict[str, None] = {}
    nothing: Mapping[str, JSON] = {}
    for x, y in zip_longest(a.parity, b.parity, fillvalue=nothing):
        if why := _incomparable(x, y):
            reasons[why] = None
            continue
        p, q = (str(each["output"]).lstrip(" ") for each in (x, y))  # some engines' detokenizers drop an answer's first space
        agreed.append(next((i for i, (c, d) in enumerate(zip(p, q, strict=False)) if c != d), min(len(p), len(q))))
        length.append(max(len(p), len(q)))
    prompts = max(len(a.parity), len(b.parity))
    return Parity(name_a, name_b, a.deployment.model, tuple(agreed), tuple(length), prompts, tuple(reasons))


def _incomparable(x: Mapping[str, JSON], y: Mapping[str, JSON]) -> str | None:
    """Why two answers say nothing about agreement. A prompt is its text, or its token ids where no text is known."""
    if not x or not y:
        return "only one deployment was asked"
    if x.get("prompt") != y.get("prompt"):
        one_is_ids = isinstance(x.get("prompt"), str) != isinstance(y.get("prompt"), str)
        return "one prompt is known as text, the other as token ids" if one_is_ids else "the prompts differ"
    if bad := sorted({str(each.get("outcome")) for each in (x, y)} - {"ok"}):
        return f"a request ended as {' and '.join(bad)}"
    return None if x.get("output") or y.get("output") else "neither said anything"
