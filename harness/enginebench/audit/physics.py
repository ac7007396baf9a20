"""Model and machine figures for the audit, from the catalogues and the roofline of `enginebench.physics`. GB is 1e9 bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from enginebench.audit.claims import Serving
from enginebench.audit.deployed import fitted, held, settings_of
from enginebench.audit.figures import Ceiling, HostSplit, Shape, Skew
from enginebench.audit.hosting import offload_of
from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.captures import CAPTURED, find
from enginebench.physics.catalogue import find_model, models, need_model, read_machine
from enginebench.physics.geometry import Attention, Layer, Mixer, Model, Role
from enginebench.physics.machine import CPU_CACHE_S, GB, HOST_BANDWIDTH, MOST_CACHE, Device, Host, Machine
from enginebench.physics.placed import read_popularity
from enginebench.physics.placement import GGUF_ENGINES, KV_BITS
from enginebench.physics.popularity import Popularity
from enginebench.physics.precision import precision
from enginebench.physics.roofline import decode, prefill
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import problem
from enginebench.physics.weights import Weights, split, weigh

_LIMITS: Mapping[str, str] = {
    "weights": "the weights read for every token",
    "experts": "reading the experts",
    "KV cache": "reading the KV cache",
    "host": "host memory",
    "compute": "arithmetic",
    "link": "the links between devices",
}
_STATED = "a device of {:g} GB/s"
"""Hardware of which only the bandwidth is known, as the source states it."""
LADDER = ("f16", "fp8", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k", "iq2_xxs", "iq1_m", "iq1_s")
"""Usual precisions, widest first."""
_MANY = 256
"""Prompts at once, to find the highest rate of prefill."""


@dataclass(frozen=True)
class Physics:
    """Computes figures of models and machines. The methods raise UserError for an unknown model, machine or precision."""

    own: Mapping[tuple[str, str], Weights] = field(default_factory=dict)
    """Weights of a run by (model, precision). They take precedence over the catalogue."""
    routing: str = "even"
    """'even', 'zipf:EXPONENT', 'captured' or a file of counts: shown beside the bound and even routing."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Model of a run -> its checkpoint, on which routing may have been counted."""

    def name(self, model: str) -> str:
        """The catalogue's name of a model; the given one if it has none."""
        found = find_model(model)
        return found.name if found else model

    def shape(self, model: str) -> Shape:
        found = self._model(model)
        experts = found.experts
        active = float(found.active("none")), float(found.active("both"))
        counts = (experts.count, experts.top_k) if experts else (0, 0)
        shared, one = (experts.shared // experts.width, float(experts.one(found.hidden))) if experts else (0, 0.0)
        return Shape(float(found.params), active, *counts, found.max_context, shared, len(found.layers), one, found.moe_layers)

    def native(self, model: str) -> str | None:
        """The precision of the published checkpoint; None if the catalogue lacks the model."""
        entry = find_model(model)
        return entry.native if entry else None

    def parameters(self, model: str) -> float:
        return self.shape(model).total

    def of_size(self, billions: float) -> str | None:
        """A model of the catalogue with this total, within 1 %."""
        fitting = (each.name for each in models().values() if abs(each.published.total / billions - 1) < 0.01)
        return next(fitting, None)

    def weights_gb(self, model: str, precision: str, engine: str | None = None) -> float:
        return self._weights(model, precision, gguf=engine in GGUF_ENGINES).bytes / GB

    def widest(self, model: str, gb: float) -> str | None:
        """The widest usual precision in which the weights take no more than `gb`; None if not even the narrowest does."""
        return next((name for name in LADDER if self.weights_gb(model, name) <= gb), None)

    def experts_gb(self, model: str, precision: str) -> float:
        """All routed experts of all layers."""
        return self._weights(model, precision).of(Role.EXPERT) / GB

    def cache_gb(self, model: str, tokens: int, kv_dtype: str = "auto", layers: int | None = None) -> tuple[float, float]:
        """KV cache of one sequence: with the sliding windows of the model, and without. layers: of so many layers, None: of all."""
        if kv_dtype not in KV_BITS:
            raise UserError(f"unknown type of the KV cache '{kv_dtype}'", key="precision")
        found, width = self._model(model), KV_BITS[kv_dtype] / 8 / GB
        share = 1.0 if layers is None else layers / len(found.layers)
        whole = sum(_unlimited(mixer).cached(tokens) for mixer in found.mixers)
        return found.cache_elements(tokens) * width * share, whole * width * share

    def memory_gb(self, hardware: str) -> float:
        """All of it: the share that a unified memory leaves to the GPU by default can be raised."""
        machine = _machine(hardware)
        return machine.count * machine.device.memory / GB

    def device(self, hardware: str) -> tuple[str, int]:
        """Name of the device in the catalogue, and the number of devices."""
        machine = _machine(hardware)
        return machine.device.name, machine.count

    def bandwidth_gb_s(self, hardware: str) -> float:
        machine = _machine(hardware)
        return machine.count * machine.device.bandwidth / GB

    def remarks(self, hardware: str) -> tuple[str, ...]:
        """What the hardware as it is stated contradicts in the catalogue: a bandwidth, or a size of memory that is not sold."""
        return _machine(hardware).device.remarks

    def host_gb_s(self, hardware: str) -> float:
        """Bandwidth of host memory; a typical value if the catalogue has none."""
        host = _machine(hardware).host
        return (host.bandwidth if host else HOST_BANDWIDTH) / GB

    def resolved(self, claim: Serving) -> tuple[Serving, str | None]:
        """The claim; where its device is not stated or not known and its bandwidth is, on a device of which that is all that counts."""
        if claim.bandwidth_gb_s is None:
            return claim, None
        try:
            if claim.hardware is not None:
                _machine(claim.hardware)
                return claim, None
        except UserError as error:
            if error.key != "hardware":
                raise
        named = f"'{claim.hardware}' is not in the catalogue" if claim.hardware else "no device is stated"
        why = f"{named}: only the stated {claim.bandwidth_gb_s:g} GB/s count, not its memory and arithmetic"
        return claim.model_copy(update={"hardware": _STATED.format(claim.bandwidth_gb_s), "bandwidth_gb_s": None}), why

    def ceiling(self, claim: Serving, batch: int, skew: Skew | None = None) -> Ceiling:
        """The roofline of one decode step of `batch` requests, including the KV cache of the stated lengths. Never falls with the batch."""
        settings, (context, spread) = self._settings(claim), held(claim)
        steps = [decode(each.favoured, batch, context, spread=spread, shared=claim.shared_prefix or 0) for each in settings]
        step = max(steps, key=lambda each: each.tokens_per_s)
        if settings[0].routing is None:
            return Ceiling(step.tokens_per_s, _LIMITS[step.bottleneck])
        even = max(decode(each, batch, context).tokens_per_s for each in settings)
        likely = self._likely(settings[0], claim.model, skew)
        routed = [decode(replace(each, popularity=likely), batch, context).tokens_per_s for each in settings] if likely else []
        return Ceiling(step.tokens_per_s, _LIMITS[step.bottleneck], even, max(routed, default=None), likely.source if likely else None)

    def _likely(self, setting: Setting, model: str, skew: Skew | None) -> Popularity | None:
        """The routing that was asked for, else the skew of the source; None for a dense model."""
        experts = setting.weights.model.experts
        if experts is None:
            return None
        return self.routed(model, setting.weights) or (skew.popularity(experts.count, experts.top_k) if skew else None)

    def routed(self, model: str, weights: Weights | None = None) -> Popularity | None:
        """How experts are used by `routing`; None if that is even, or if nothing was counted on this model."""
        weights, reference = weights or self._weights(model, "f16"), self.references.get(model, model)
        if self.routing.startswith(CAPTURED) and (weights.model.experts is None or find(reference, weights.model.experts.count) is None):
            return None
        try:
            return read_popularity(self.routing, weights, reference)
        except UserError as error:
            if error.key == "routing":  # counted on a model with other experts
                return None
            raise

    def prefill_ms(self, claim: Serving, tokens: int) -> float:
        """The shortest time of the prefill of one prompt."""
        return min(prefill(each.favoured, tokens).time_s for each in self._settings(claim)) * 1e3

    def prefill_tok_s(self, claim: Serving) -> float:
        """The highest rate of prefill, with many prompts at once."""
        return max(prefill(each.favoured, claim.isl or 512, _MANY).tokens_per_s for each in self._settings(claim))

    def most_read_gb(self, claim: Serving, sequences: int) -> float:
        """What a decode step can read at most: all weights, and the KV cache of `sequences` of the stated lengths."""
        setting, tokens = self._settings(claim)[0], (claim.isl or 0) + (claim.osl or 0)
        cache = setting.weights.model.cache_elements(tokens) * setting.kv_bits / 8 * sequences
        return (setting.weights.bytes * claim.dp_replicas + cache) / GB

    def largest_batch(self, claim: Serving) -> int:
        """Number of requests of the stated lengths that fit next to the weights; a very large number if no length is stated."""
        context = max(1, (claim.isl or 0) + (claim.osl or 0) - (claim.shared_prefix or 0))
        return max(fitted(each, context).max_concurrency for each in self._settings(claim))

    def host_split(self, claim: Serving) -> HostSplit:
        """On the devices is what the options or the claim state, else what fits: first the weights that every token reads, then experts."""
        setting = self._settings(claim)[0]
        weights, machine = setting.weights, setting.machine
        offload = offload_of(claim, weights, machine)
        on_device, on_host = split(weights, offload)
        host = machine.host or Host(on_host.bytes)
        hosted = replace(machine, host=Host(host.memory, claim.host_gb_s * GB, stated=True) if claim.host_gb_s else host)
        placed = replace(setting, machine=hosted, offload=offload)
        even, best = (decode(each, claim.streams or 1, held(claim)[0]) for each in (placed, placed.favoured))
        device_s = sum(seconds for name, seconds in best.memory.items() if name != "host")
        return HostSplit(on_device.bytes / GB, on_host.bytes / GB, device_s, even.bytes["host"] / GB, best.time_s)

    def divides(self, model: str, devices: int) -> bool:
        """Whether tensor parallelism can spread the model over so many devices."""
        return problem(self._model(model), Parallelism(tp=devices)) is None

    def _model(self, model: str) -> Model:
        own = next((weights.model for (name, _), weights in self.own.items() if name == model), None)
        return own or _model(model)

    def _weights(self, model: str, name: str, *, gguf: bool = False) -> Weights:
        return self.own.get((model, name)) or _catalogue_weights(model, name, gguf)

    def _settings(self, claim: Serving) -> Sequence[Setting]:
        weights = self._weights(claim.model, claim.precision or "", gguf=claim.engine in GGUF_ENGINES)
        return settings_of(claim, weights, _machine(claim.hardware or ""))


def _machine(text: str) -> Machine:
    found = re.fullmatch(re.escape(_STATED).replace(r"\{:g\}", r"([\d.e+]+)"), text)
    if found is None:
        return read_machine(text)
    bandwidth = float(found[1]) * GB
    return Machine(Device(text, math.inf, bandwidth, {"bf16": math.inf}, cache=min(MOST_CACHE, CPU_CACHE_S * bandwidth)))


def _unlimited(mixer: Mixer) -> Mixer:
    """Without its sliding window."""
    return replace(mixer, window=None) if isinstance(mixer, Attention) and mixer.selection is None else mixer


@cache
def _catalogue_weights(model: str, name: str, gguf: bool) -> Weights:
    return weigh(_model(model), precision(name, gguf=gguf))


@cache
def _model(name: str) -> Model:
    """A model of the catalogue, or 'dense-109b': no model, but one that texts compare with, of so many billion weights in dense layers."""
    found = re.fullmatch(r"dense-(\d+(?:\.\d+)?)b", name.lower())
    if found is None or find_model(name):
        return need_model(name).model
    count, hidden, vocab = max(1, round(float(found[1]) * 80 / 70)), 8192, 32000  # as deep for its size as Llama 70B
    empty = Model(name, hidden, vocab, tied=False, max_context=131_072, layers=(Layer(Attention(64, 8, 128, 128)),) * count)
    width = 64 * round((float(found[1]) * 1e9 - empty.params) / (3 * hidden * count) / 64)  # divides among ranks
    if width < 1:
        raise UserError(f"'{name}' is too small for a dense model of this form", key="model", advice="write at least dense-2b")
    return replace(empty, layers=(replace(empty.layers[0], dense=width),) * count)
