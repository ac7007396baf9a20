"""How fast a model can decode on its hardware, over batch and context. Data out; formatting it for people is left to the caller."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from enginebench.domain import JSON, plain, plain_object
from enginebench.errors import UserError
from enginebench.physics.expectation import Expectations, Expected, published
from enginebench.physics.files import read_weights
from enginebench.physics.machine import GB
from enginebench.physics.placed import PlacedModel, read_popularity
from enginebench.physics.plot import COLOURS, frame, mark, page
from enginebench.physics.roofline import Step, decode, prefill
from enginebench.physics.setting import Setting, Speculation

if TYPE_CHECKING:
    import pandas as pd


BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MAX_BATCH = 2**20


@dataclass(frozen=True)
class Knee:
    """A batch size from which on the bottleneck is another one."""

    batch: int
    before: str
    after: str


@dataclass(frozen=True)
class Ceilings:
    """The highest decode rates that memory, arithmetic and links allow, over batch and context, in three lines.

    The bound holds for any routing; `even` and `curves` for the routing that they name.
    """

    model: PlacedModel
    setting: Setting
    """The model with the machine's bandwidth, the routing and the speculation that were asked for."""
    curves: Mapping[int, tuple[Step, ...]]
    """Context in tokens -> one step per batch, with the routing that was asked for (even unless another is)."""
    bounds: Mapping[int, tuple[Step, ...]]
    """The same with every assumption in favour of speed: no routing and no engine is faster."""
    even: Mapping[int, tuple[Step, ...]]
    """The same if tokens use all experts equally: an estimate, no bound."""
    expected: Mapping[int, tuple[Expected | None, ...]] = field(default_factory=dict)
    """What the engine usually reaches, with a range; None where no measurement of such a case is known."""

    @property
    def routing(self) -> str:
        """How tokens are spread over experts: 'uniform routing', 'dense', ..."""
        return "dense" if self.setting.routing is None else self.setting.routing.source

    @property
    def mixture(self) -> bool:
        """Whether routing matters: the model has experts."""
        return self.setting.routing is not None

    @property
    def lines(self) -> Mapping[str, Mapping[int, tuple[Step, ...]]]:
        """Name -> curves: 'bound', for a mixture 'even', and the routing that was asked for if it is another. The last is `curves`."""
        asked = {self.routing: self.curves} if self.setting.popularity is not None else {}
        return {"bound": self.bounds, **({"even": self.even} if self.mixture else {}), **asked}

    def prefill(self, context: int) -> Step | None:
        """The fastest prefill of one prompt; None for an empty one."""
        return prefill(self.setting, context) if context else None

    @cached_property
    def all_touched(self) -> int | None:
        """The batch from which a step reads 95 % of the experts; None for a dense model."""
        return all_touched(self.setting)

    def knees(self, context: int) -> list[Knee]:
        """The batches from which another limit is the bottleneck."""
        return knees(self.setting, context)

    def batch_for(self, tokens_per_s: float, context: int) -> int | None:
        """The smallest batch at which a rate is possible with any routing; None when at no batch."""
        return batch_needed(self.setting.favoured, tokens_per_s, context)

    def likely_batch_for(self, tokens_per_s: float, context: int) -> int | None:
        """The smallest batch whose ceiling reaches a rate with the routing that was asked for; None when no batch does."""
        return batch_needed(self.setting, tokens_per_s, context)

    @property
    def rooms(self) -> Mapping[int, int]:
        """The sequences that memory has room for, by context."""
        return {context: self.model.room(context) for context in self.curves}

    def page(self) -> str:
        """Throughput over batch, for each context, as an HTML page that opens offline."""
        return page(self.model.title, {"data": _traces(self), "layout": _layout(self)})

    @property
    def frame(self) -> pd.DataFrame:
        """One row per context and batch.

        Columns: context (tokens), batch, tokens_per_s, tokens_per_s_user, step_s (s), rules (the limit that decides),
        touched (distinct experts read per layer), fits (whether memory has room for the batch), with the routing that was asked for;
        bound and even (tokens/s that no routing exceeds, and with even routing); expected, expected_low and expected_high (tokens/s, NaN
        where no measurement is known).
        """
        import pandas as pd

        columns = ["context", "batch", "tokens_per_s", "tokens_per_s_user", "step_s", "rules", "touched", "fits", "bound", "even"]
        columns += ["expected", "expected_low", "expected_high"]
        rows = [
            (context, *_figures(its), its.batch <= room, bound.tokens_per_s, even.tokens_per_s, *_range(usual))
            for (context, steps), room in zip(self.curves.items(), self.rooms.values(), strict=True)
            for its, bound, even, usual in zip(steps, self.bounds[context], self.even[context], self.expected[context], strict=True)
        ]
        return pd.DataFrame(rows, columns=columns)

    def to_dict(self, reach: float | None = None) -> JSON:
        """What `bench ceiling --json` prints; times in seconds. reach: also the batch for this many tokens/s."""
        placed = self.model
        return {
            "model": placed.weights.model.name,
            "precision": placed.weights.precision.name,
            "weights_source": placed.weights.source,
            "hardware": placed.machine.name,
            "engine": placed.engine,
            "bandwidth": self.setting.machine.device.bandwidth,
            "parallelism": plain(placed.parallelism),
            "offload": plain(placed.offload),
            "routing": self.routing,
            "speculation": self._speculation(),
            "all_touched_from": all_touched(self.setting),
            "contexts": [self._context(context, steps, reach) for context, steps in self.curves.items()],
        }

    def _context(self, context: int, steps: Sequence[Step], reach: float | None) -> JSON:
        first = self.prefill(context)
        return {
            "context": context,
            "room": self.model.room(context),
            "decode": [_step_to_dict(step) for step in steps],
            "bound": [_step_to_dict(step) for step in self.bounds[context]],
            "even": [_step_to_dict(step) for step in self.even[context]],
            "expected": [None if usual is None else usual.to_dict() for usual in self.expected[context]],
            "prefill": None if first is None else _step_to_dict(first),
            "knees": plain(knees(self.setting, context)),
            "reach": None if reach is None else self._reach(reach, context),
        }

    def _reach(self, reach: float, context: int) -> JSON:
        return {"tokens_per_s": reach, "batch": self.batch_for(reach, context), "likely_batch": self.likely_batch_for(reach, context)}

    def _speculation(self) -> JSON:
        speculation = self.setting.speculation
        if speculation is None:
            return None
        drafter = speculation.drafter.weights.model.name if speculation.drafter else None
        return {"tokens": speculation.tokens, "acceptance": speculation.acceptance, "drafter": drafter}


def ceiling(
    model: PlacedModel, *, contexts: Sequence[int] = (2048,), batches: Sequence[int] = (), routing: str = "even", measured: bool = False,
    bandwidth_gb_s: float | None = None, speculate: int | None = None, acceptance: float = 0.7, draft: str | None = None,
    expectations: Expectations | None = None,
) -> Ceilings:  # fmt: skip
    """How fast decoding can be at most, for each context and batch, and which limit decides.

    contexts: tokens that each sequence holds; 0: no KV cache. batches: sequences in a step; empty: the powers of 2 up to 1024. routing:
    'even', 'zipf:EXPONENT', 'captured', or a file of expert counts. measured: use the bandwidth that a copy reached on such a device, where
    known. bandwidth_gb_s: per device, instead of the data sheet's, in GB/s. speculate: tokens drafted and checked in each step. acceptance:
    probability of each drafted token. draft: the drafting model, in the same precision; None: drafting takes no time.
    expectations: what engines usually reach, see `expectations`; None: by published measurements.
    UserError for an unknown drafting model or routing file, and for `draft` without `speculate`.
    """
    machine = model.machine.as_measured() if measured else model.machine
    if bandwidth_gb_s:
        machine = machine.with_bandwidth(bandwidth_gb_s * GB)
    if draft and not speculate:
        raise UserError("--draft drafts nothing without --speculate N")
    popularity = read_popularity(routing, model.weights, model.reference)
    setting = Setting(
        model.weights, machine, model.parallelism, model.kv_bits, popularity=popularity, offload=model.offload, redundant=model.redundant
    )
    if speculate:
        drafter = Setting(read_weights(draft, model.precision), machine, replace(model.parallelism, ep=1), model.kv_bits) if draft else None
        setting = replace(setting, speculation=Speculation(speculate, acceptance, drafter))
    steps = sorted(set(batches)) or BATCHES
    asked, bounds, even = (
        {context: tuple(decode(each, batch, context) for batch in steps) for context in contexts}
        for each in (setting, setting.favoured, replace(setting, popularity=None))
    )
    table = expectations or published()
    usual = {context: tuple(table.expected(model.engine, table.decode(setting, batch, context)) for batch in steps) for context in contexts}
    return Ceilings(model, setting, asked, bounds, even, usual)


def _range(usual: Expected | None) -> tuple[float | None, ...]:
    return (None, None, None) if usual is None else (usual.tokens_per_s, usual.low, usual.high)


def _figures(step: Step) -> tuple[object, ...]:
    return step.batch, step.tokens_per_s, step.tokens_per_s_user, step.time_s, step.bottleneck, step.touched


def _step_to_dict(step: Step) -> dict[str, JSON]:
    derived = {"time_s": step.time_s, "tokens_per_s": step.tokens_per_s, "tokens_per_s_user": step.tokens_per_s_user}
    return {**plain_object(step), **derived, "limit": step.limit, "rules": step.bottleneck}


def knees(setting: Setting, context: float, most: int = 4096) -> list[Knee]:
    """Every change of the bottleneck up to batch `most`, found by bisection between powers of two."""

    def bottleneck(batch: int) -> str:
        return decode(setting, batch, context).bottleneck

    found = []
    low = 1
    while low < most:
        high = min(2 * low, most)
        begin = low
        while (before := bottleneck(begin)) != bottleneck(high):
            batch = bisect_left(range(high), x=True, lo=begin + 1, key=lambda batch, before=before: bottleneck(batch) != before)  # type: ignore[misc]
            found.append(Knee(batch, before, bottleneck(batch)))
            begin = batch
        low = high
    return found


def batch_needed(setting: Setting, tokens_per_s: float, context: float) -> int | None:
    """The smallest batch with a ceiling of at least this many output tokens/s; None if there is none. Ignores memory capacity."""
    batch = bisect_left(range(MAX_BATCH + 1), x=True, lo=1, key=lambda batch: decode(setting, batch, context).tokens_per_s >= tokens_per_s)
    return batch if batch <= MAX_BATCH else None


def all_touched(setting: Setting, share: float = 0.95) -> int | None:
    """The batch from which on a step touches this share of a layer's experts, so that experts cost no more. None for a dense model."""
    experts, routing = setting.weights.model.experts, setting.routing
    if experts is None or routing is None:
        return None
    batch = bisect_left(range(MAX_BATCH + 1), x=True, lo=1, key=lambda batch: routing.touched(batch) >= share * experts.count)
    return batch if batch <= MAX_BATCH else None


_LIMITS = (("memory", "dot"), ("compute", "dash"), ("link", "dashdot"))


def _traces(found: Ceilings) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    for i, (context, steps) in enumerate(found.curves.items()):
        batches = [step.batch for step in steps]
        line = {"color": COLOURS[i % len(COLOURS)], "width": 3}
        name = f"{context:,} tokens"
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": batches, "y": [step.tokens_per_s for step in steps],
                "line": line, "customdata": [[step.bottleneck, 1e3 * step.time_s, step.tokens_per_s_user] for step in steps],
                "hovertemplate": "batch %{x}: %{y:,.0f} tok/s<br>%{customdata[2]:,.1f} per user, step %{customdata[1]:.3f} ms"
                "<br>bottleneck: %{customdata[0]}<extra>" + name + "</extra>",
            }
        )  # fmt: skip
        if found.mixture:
            bound = [step.tokens_per_s for step in found.bounds[context]]
            traces.append(
                {
                    "type": "scatter", "mode": "lines", "name": f"{name}, bound for any routing", "x": batches, "y": bound,
                    "line": {"color": line["color"], "width": 2, "dash": "longdash"},
                    "hovertemplate": "batch %{x}: %{y:,.0f} tok/s with any routing<extra></extra>",
                }
            )  # fmt: skip
        for limit, dash in _LIMITS:
            alone = [step.tokens / step.seconds[limit] if step.seconds[limit] else None for step in steps]
            if any(alone):
                traces.append(
                    {
                        "type": "scatter", "mode": "lines", "name": f"{limit} alone", "x": batches, "y": alone, "legendgroup": name,
                        "line": {"color": line["color"], "width": 1, "dash": dash}, "hoverinfo": "skip",
                    }
                )  # fmt: skip
    return traces


def _layout(found: Ceilings) -> dict[str, Any]:
    last = max((steps[-1].batch for steps in found.curves.values()), default=1)
    marks = [
        mark(knee.batch, f"bottleneck from here at {context:,} tokens: {knee.after}", "dot")
        for context in list(found.curves)[:1]
        for knee in knees(found.setting, context, max(2, last))
    ]
    full = {context: batch for context, batch in found.rooms.items() if 0 < batch < last}
    marks += [mark(batch, f"memory full at {batch:,} x {context:,} tokens", "solid") for context, batch in full.items()]
    axes = frame(found.model.title, "sequences in a step", marks)
    return {**axes, "xaxis": {**axes["xaxis"], "type": "log"}, "yaxis": {**axes["yaxis"], "type": "log"}}
