"""Does a model fit its hardware, and what would: the smallest machines of the catalogue, and the least offload to the host."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace

from enginebench.domain import JSON, Parallelism, plain
from enginebench.domain.precisions import GGUF_PRECISIONS
from enginebench.physics import memory
from enginebench.physics.catalogue import devices
from enginebench.physics.expectation import Expectations, Expected, published
from enginebench.physics.machine import GIB, Device, Machine
from enginebench.physics.memory import Fit, Reserve
from enginebench.physics.offload_curve import LLAMACPP
from enginebench.physics.placed import PlacedModel
from enginebench.physics.roofline import decode
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import devices_of, problem
from enginebench.physics.weights import NOTHING, Offload

COUNTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class ModelFit:
    fit: Fit
    """Weights, KV cache and working memory per device, in bytes, and what is left."""
    smallest: tuple[Fit, ...]
    """Per device of the catalogue, the fewest that hold one replica; least memory first."""
    with_host: tuple[Fit, ...]
    """Ways in which llama.cpp runs it with the help of the host's memory, as `offload_curve` finds them, the first of which has none on
    the host if its smaller working memory is enough. Empty when it fits without, no host is stated, or llama.cpp lacks the precision."""
    bound: float | None = None
    """Output tokens/s of decoding at this context and concurrency that no engine exceeds; None if it does not fit."""
    expected: Expected | None = None
    """What the engine usually reaches of it; None if it does not fit, or if no measurement of such a case is known."""

    @property
    def fits(self) -> bool:
        return self.fit.fits

    def to_dict(self) -> JSON:
        """What `bench fit --json` prints; memory in bytes."""
        asked, weights = self.fit, self.fit.weights
        return {
            **_fit_to_dict(asked), "model": weights.model.name, "precision": weights.precision.name, "params": weights.model.params,
            "active": weights.model.active("both"),
            "active_without_input_table": weights.model.active("head"), "weights_source": weights.source, "context": asked.context,
            "concurrency": asked.concurrency, "kv_bits": asked.kv_bits, "reserve": plain(asked.reserve),
            "bound": self.bound, "expected": None if self.expected is None else self.expected.to_dict(),
            "smallest": [_fit_to_dict(each) for each in self.smallest],
            "with_host": [{**_fit_to_dict(each), "offload": plain(each.offload)} for each in self.with_host],
        }  # fmt: skip


def fit(
    model: PlacedModel, *, context: int = 4096, concurrency: int = 1, reserve_gib: float | None = None, chunk: int | None = None,
    expectations: Expectations | None = None,
) -> ModelFit:  # fmt: skip
    """Whether a model fits its hardware.

    context: tokens of a sequence, prompt and output. concurrency: sequences at once, over all replicas.
    reserve_gib: memory per device for driver, graphs and communication, in GiB; None: 2.5, and 1 for llama.cpp. chunk: prompt tokens
    that are processed at once; None: 8,192, and 512 for llama.cpp. expectations: what engines usually reach, see `expectations`; None: by
    published measurements.
    UserError for a spread that does not divide the model.
    """
    asked = memory.fit(
        model.weights, model.machine, model.parallelism, context=context, concurrency=concurrency, kv_bits=model.kv_bits,
        reserve=_reserve(Reserve(), reserve_gib, chunk), offload=model.offload, redundant=model.redundant,
    )  # fmt: skip
    hosted = () if asked.fits or asked.machine.host is None else _with_llamacpp(model, asked, _reserve(LLAMACPP, reserve_gib, chunk))
    bound, expected = _rate(model, concurrency, context, expectations or published()) if asked.fits else (None, None)
    return ModelFit(asked, tuple(smallest(asked, devices().values())), tuple(hosted), bound, expected)


def _rate(model: PlacedModel, concurrency: int, context: int, table: Expectations) -> tuple[float, Expected | None]:
    """Output tokens/s of decoding: the bound, and what is expected."""
    setting = Setting(model.weights, model.machine, model.parallelism, model.kv_bits, offload=model.offload)
    estimate = table.decode(setting, concurrency, context)
    return decode(setting.favoured, concurrency, context).tokens_per_s, table.expected(model.engine, estimate)


def _reserve(usual: Reserve, gib: float | None, chunk: int | None) -> Reserve:
    return Reserve(usual.runtime if gib is None else gib * GIB, chunk or usual.chunk)


def _with_llamacpp(model: PlacedModel, asked: Fit, reserve: Reserve) -> list[Fit]:
    """Its weights and working memory count, as in `offload_curve`, because the flags are llama.cpp's."""
    weights = model.weights_of_gguf
    if weights.precision.name not in GGUF_PRECISIONS:
        return []
    plain = replace(asked, weights=weights, reserve=reserve).with_offload(NOTHING)
    return [plain] if plain.fits else most_on_device(plain)


def widened(parallelism: Parallelism, devices: int) -> Parallelism:
    """One replica on `devices` devices. Expert and attention parallelism that covered all tensor-parallel ranks still do."""
    tp = max(1, devices // parallelism.pp)
    wide = parallelism.tp > 1
    return replace(
        parallelism,
        tp=tp,
        dp_replicas=1,
        ep=tp if wide and parallelism.ep == parallelism.tp else 1,
        attention_dp=tp if wide and parallelism.attention_dp == parallelism.tp else 1,
    )


def smallest(asked: Fit, devices: Iterable[Device]) -> list[Fit]:
    """For each device type, the smallest number of devices that holds one replica; least total memory first. Types that never fit are left
    out."""
    grown = {}  # what each spread takes on a device, whichever that is
    for count in COUNTS:
        over = widened(asked.parallelism, count)
        if devices_of(over) == count and problem(asked.weights.model, over) is None:
            grown[count] = replace(asked, parallelism=over).with_offload(NOTHING)
    on = ((replace(each, machine=Machine(device, count)) for count, each in grown.items()) for device in devices)
    found = [next((each for each in some if each.fits), None) for some in on]
    return sorted((each for each in found if each), key=lambda each: each.machine.count * each.machine.device.memory)


def most_on_device(asked: Fit) -> list[Fit]:
    """The deployment with the least offload that fits, for each kind: experts of whole layers, single experts, whole layers.

    Empty if it fits without offload, or if no host memory is stated. Kinds that do not help are left out.
    """
    model, host = asked.weights.model, asked.machine.host
    if host is None or asked.fits:
        return []
    layers, experts = len(model.layers), model.experts
    kinds = [[Offload(blocks=n) for n in range(layers + 1)]]
    if experts:
        by_expert = [Offload(kept=n) for n in range(experts.count, -1, -1)]
        kinds = [[Offload(expert_layers=n) for n in range(layers + 1)], by_expert, *kinds]
    found = (_first(asked, offloads) for offloads in kinds)
    return [each for each in found if each]


def _first(asked: Fit, offloads: list[Offload]) -> Fit | None:
    """The first offload that fits. Each one leaves less on the device than the one before."""
    index = bisect_left(offloads, x=True, key=lambda offload: asked.with_offload(offload).budget.left >= 0)
    found = asked.with_offload(offloads[index]) if index < len(offloads) else None
    return found if found and found.fits and found.offload.anything else None


def _fit_to_dict(found: Fit) -> dict[str, JSON]:
    budget = found.budget
    return {
        "hardware": found.machine.name, "parallelism": plain(found.parallelism), "fits": found.fits, "why_not": found.why_not,
        "weights_bytes": {role.value: size for role, size in budget.weights.items()}, "cache_bytes": budget.cache,
        "activations_bytes": budget.activations, "runtime_bytes": budget.runtime, "usable_bytes": budget.usable,
        "left_bytes": budget.left, "host_bytes": budget.host, "max_context": found.max_context, "max_concurrency": found.max_concurrency,
    }  # fmt: skip
