"""What of a model should stay on a GPU that is too small for it: every split between device and host that llama.cpp has a flag for.

A mixture of experts keeps the routed experts of the first N layers on the host (`--n-cpu-moe N`), a dense model the layers (`-ngl`).
Only the bandwidth of host memory limits the host here; slow cores make the real curve lower. Data out; formatting is left to the caller.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from enginebench.domain import JSON, Parallelism, plain
from enginebench.domain.precisions import GGUF_PRECISIONS
from enginebench.errors import UserError
from enginebench.physics.catalogue import read_machine
from enginebench.physics.expectation import Expectations, Expected, published
from enginebench.physics.files import read_weights
from enginebench.physics.machine import GB, GIB, Host
from enginebench.physics.memory import Fit, Reserve, fit
from enginebench.physics.placed import kv_bits, read_popularity
from enginebench.physics.plot import COLOURS, frame, mark, page
from enginebench.physics.popularity import UNIFORM, Popularity, uniform
from enginebench.physics.roofline import Step, decode
from enginebench.physics.setting import Setting
from enginebench.physics.weights import Offload

ENGINE = "llamacpp"
"""The engine whose flags these are."""
ALL_LAYERS = 999
"""More layers than any model has; llama.cpp accepts that."""
LLAMACPP = Reserve(runtime=1.0 * 2**30, chunk=512)
"""Assumed memory of llama.cpp besides weights and cache: a CUDA context and buffers for one micro-batch (-ub 512)."""
_KV_TYPES = {32.0: "f32", 8.5: "q8_0", 6.0: "q5_1", 5.5: "q5_0", 5.0: "q4_1", 4.5: "q4_0"}
"""Bits per element of the KV cache -> llama.cpp's name, without the default."""


@dataclass(frozen=True)
class Split:
    layers: int
    """Number of layers whose experts (of a dense model: all weights) are on the host."""
    fit: Fit
    step: Step
    by_layer: bool = False
    """Whole layers are on the host, not only their experts."""
    expected: Expected | None = None
    """What llama.cpp usually reaches; None if no measurement of such a case is known."""

    @property
    def device_bytes(self) -> float:
        return sum(self.fit.budget.weights.values())

    @property
    def options(self) -> dict[str, int | str]:
        """The `options` of a llama.cpp deployment in a scenario."""
        model, kv = self.fit.weights.model, _KV_TYPES.get(self.fit.kv_bits)
        # the head counts as a layer, and is the last to move to the host
        placed: dict[str, int | str] = {"gpu_layers": len(model.layers) + 1 - self.layers} if self.by_layer else {"n_cpu_moe": self.layers}
        return {**placed, **({"kv_type": kv} if kv else {})}

    @property
    def flags(self) -> str:
        """The flags of llama-server, with the total context of all sequences: '-ngl 999 --n-cpu-moe 37 -c 8192 -np 1'."""
        options = self.options
        words = ["-ngl", options.get("gpu_layers", ALL_LAYERS), *(("--n-cpu-moe", self.layers) if "n_cpu_moe" in options else ())]
        words += ["-c", self.fit.context * self.fit.concurrency, "-np", self.fit.concurrency]
        words += ["-ctk", kv, "-ctv", kv] if (kv := options.get("kv_type")) else []
        return " ".join(map(str, words))

    def to_dict(self) -> JSON:
        return {
            "layers": self.layers, "fits": self.fit.fits, "why_not": self.fit.why_not, "device_bytes": self.device_bytes,
            "host_bytes": self.fit.budget.host, "left_bytes": self.fit.budget.left, "tokens_per_s": self.step.tokens_per_s,
            "expected": self.expected.to_dict() if self.expected else None,
            "rules": self.step.bottleneck, "options": dict(self.options), "flags": self.flags,
        }  # fmt: skip


@dataclass(frozen=True)
class Hottest:
    """What an engine could keep on the GPU that places experts one by one, which llama.cpp does not."""

    kept: int
    """Experts of each layer."""
    experts: int
    hit_rate: float
    """Share of the tokens' choices that these cover."""
    routing: str

    @property
    def text(self) -> str:
        """'room for 41 of 128 experts in each layer: the hottest cover 67.2 % of the choices (routing of m on text; even: 32.0 %)'."""
        even = f"; even: {self.kept / self.experts:.1%}" if self.routing != UNIFORM else ""
        cover = f"the hottest cover {self.hit_rate:.1%} of the choices ({self.routing}{even})"
        return f"room for {self.kept} of {self.experts} experts in each layer: {cover}"


@dataclass(frozen=True)
class OffloadCurve:
    """Every split of a model between one GPU and the host's memory that llama.cpp has a flag for, with its ceiling."""

    splits: tuple[Split, ...]
    """By rising number of layers whose experts (of a dense model: everything) lie on the host; the first has none there."""
    popularity: Popularity | None = None
    """How tokens are spread over experts; None: uniform routing, or a dense model."""

    @property
    def whole(self) -> Fit:
        """Everything on the GPU, whether or not that fits."""
        return self.splits[0].fit

    @cached_property
    def best(self) -> Split | None:
        """The fastest split that fits, which has the least on the host; None when none does."""
        return next((each for each in self.splits if each.fit.fits), None)

    @cached_property
    def knee(self) -> Split | None:
        """The first split at which the host's memory takes longer than the GPU; None when there is none."""
        return next((each for each in self.splits if each.step.memory["host"] > each.step.time_s / 2), None)

    @cached_property
    def hottest(self) -> Hottest | None:
        """The most experts of each layer that fit the GPU, the hottest ones; None for a dense model, or if not even one fits."""
        experts = self.whole.weights.model.experts
        if experts is None:
            return None
        fitting = bisect_left(range(1, experts.count + 1), x=True, key=lambda kept: not self.whole.with_offload(Offload(kept=kept)).fits)
        popularity = self.popularity or uniform(experts.count, experts.top_k)
        return Hottest(fitting, experts.count, popularity.hit_rate(fitting), popularity.source) if fitting else None

    @property
    def title(self) -> str:
        """'gpt-oss-120b in mxfp4, 61.1 GB, on 1x rtx4090 + 128 GB'."""
        weights = self.whole.weights
        return f"{weights.model.name} in {weights.precision.name}, {weights.bytes / 1e9:.4g} GB, on {self.whole.machine.name}"

    @property
    def host(self) -> Host:
        host = self.whole.machine.host
        assert host is not None  # noqa: S101  # `offload_curve` refuses a machine without one
        return host

    def page(self) -> str:
        """The ceiling over the number of layers on the host, as an HTML page that opens offline. Splits that do not fit are grey."""
        best, title, by_layer = self.best, self.title, self.splits[0].by_layer
        traces = [_placed([each for each in self.splits if each.fit.fits == fits], fits=fits) for fits in (True, False)]
        marks = [mark(best.layers, f"the fastest that fits: {best.flags}", "solid", log=False)] if best else []
        layout = frame(title, "layers on the host" if by_layer else "layers with their experts on the host", marks)
        return page(title, {"data": traces, "layout": layout})

    def to_dict(self) -> JSON:
        """What `bench offload --json` prints; memory in bytes."""
        whole = self.whole
        return {
            "model": whole.weights.model.name, "precision": whole.weights.precision.name, "weights_source": whole.weights.source,
            "hardware": whole.machine.name, "host_bandwidth": self.host.bandwidth, "context": whole.context,
            "concurrency": whole.concurrency, "kv_bits": whole.kv_bits, "plan": self.best.layers if self.best else None,
            "knee": self.knee.layers if self.knee else None, "routing": self.popularity.source if self.popularity else UNIFORM,
            "hottest_experts": plain(self.hottest), "curve": [each.to_dict() for each in self.splits],
        }  # fmt: skip


def offload(
    model: str,
    hardware: str,
    *,
    precision: str | None = None,
    kv: str = "f16",
    host_gb_s: float | None = None,
    context: int = 8192,
    concurrency: int = 1,
    routing: str = "even",
    reserve_gib: float = 1.0,
    expectations: Expectations | None = None,
) -> OffloadCurve:
    """Which experts (of a dense model: layers) should stay on a GPU that is too small, with llama.cpp's flags and the possible tokens/s.

    model, precision, kv, host_gb_s: as in `place`. hardware: one GPU and the host's memory, 'rtx4090+128gb'. context: tokens of a
    sequence. concurrency: sequences at once. routing: as in `ceiling`. reserve_gib: memory for the driver and llama.cpp's buffers, in GiB.
    expectations: what llama.cpp usually reaches, see `expectations`; None: by published measurements.
    UserError for several GPUs, no host memory, or a precision that llama.cpp does not have.
    """
    machine = read_machine(hardware, host_bandwidth=host_gb_s * GB if host_gb_s else None)
    if machine.host is None:
        raise UserError(f"--hardware {hardware} names no host memory", advice=f"write for example {hardware}+128gb")
    if machine.count != 1:
        advice = "name one GPU, or use bench fit --pp"
        raise UserError(f"--hardware {hardware}: the split over several GPUs is not computed", advice=advice)
    weights = read_weights(model, precision, gguf=True)
    if weights.precision.name not in GGUF_PRECISIONS:
        raise UserError(f"llama.cpp has no {weights.precision.name}", key="precision", advice="name one of its own: --precision q4_k_m")
    reserve = replace(LLAMACPP, runtime=reserve_gib * GIB)
    whole = fit(weights, machine, Parallelism(), context=context, concurrency=concurrency, kv_bits=kv_bits(kv), reserve=reserve)
    return splits(whole, read_popularity(routing, weights, model), expectations)


def splits(asked: Fit, popularity: Popularity | None = None, expectations: Expectations | None = None) -> OffloadCurve:
    """For N from 0 to all layers: whether it fits, and its decode ceiling. UserError if the machine has no host memory.

    If a mixture does not fit with all experts on the host, but with whole layers there, N counts those.
    """
    kinds = (False, True) if asked.weights.model.experts else (True,)
    curves = [_curve(asked, popularity, expectations or published(), by_layer=by_layer) for by_layer in kinds]
    return next((curve for curve in curves if curve.best), curves[0])


def _curve(asked: Fit, popularity: Popularity | None, known: Expectations, *, by_layer: bool) -> OffloadCurve:
    found, streams, context = [], asked.concurrency, asked.context
    for layers in range(len(asked.weights.model.layers) + 1):
        offload = Offload(blocks=layers) if by_layer else Offload(expert_layers=layers)
        setting = Setting(asked.weights, asked.machine, asked.parallelism, asked.kv_bits, popularity=popularity, offload=offload)
        usual = known.expected(ENGINE, known.decode(setting, streams, context))
        found.append(Split(layers, asked.with_offload(offload), decode(setting, streams, context), by_layer, usual))
    return OffloadCurve(tuple(found), popularity)


def _placed(curve: Sequence[Split], *, fits: bool) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": "fits" if fits else "does not fit", "x": [each.layers for each in curve],
        "y": [each.step.tokens_per_s for each in curve], "line": {"color": COLOURS[0] if fits else "#bbbbbb", "width": 3},
        "customdata": [[each.device_bytes / 1e9, each.fit.budget.host / 1e9, each.step.bottleneck, each.flags] for each in curve],
        "hovertemplate": "N = %{x}: at most %{y:,.1f} tok/s<br>%{customdata[0]:.1f} GB on the device, %{customdata[1]:.1f} on the host"
        "<br>bottleneck: %{customdata[2]}<br>%{customdata[3]}<extra></extra>",
    }  # fmt: skip
