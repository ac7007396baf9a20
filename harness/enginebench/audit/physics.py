"""Model and machine figures for the audit, from the catalogues and the roofline of `enginebench.physics`. GB is 1e9 bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from enginebench.audit.claims import Serving
from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.catalogue import find_model, need_model, read_machine
from enginebench.physics.machine import GB, HOST_BANDWIDTH, Host
from enginebench.physics.memory import Reserve, fit
from enginebench.physics.placement import GGUF_ENGINES, placement_of
from enginebench.physics.precision import precision
from enginebench.physics.roofline import decode
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import problem
from enginebench.physics.weights import Offload, Weights, split, weigh

_LIMITS: Mapping[str, str] = {
    "weights": "the weights read for every token",
    "experts": "reading the experts",
    "KV cache": "reading the KV cache",
    "host": "host memory",
    "compute": "arithmetic",
    "link": "the links between devices",
}


@dataclass(frozen=True)
class Ceiling:
    tok_s: float
    """Output tokens/s of the whole deployment, with every assumption in favour of the claim."""
    limit: str
    even: float | None = None
    """The same if tokens use all experts equally: an estimate, no bound. None for a dense model."""


@dataclass(frozen=True)
class HostSplit:
    """Weights that are divided between the devices and host memory."""

    device_gb: float
    host_gb: float
    device_s: float
    """Time of the devices' reads in one decode step, at least."""
    host_gb_per_step: float
    """Read from host memory in one decode step with even routing."""
    least_s: float = 0.0
    """The shortest decode step, whatever the routing, with a typical host."""


@dataclass(frozen=True)
class Shape:
    """Figures of a model, computed from its dimensions."""

    total: float
    active: tuple[float, float]
    """Parameters that a token uses, without and with the vocabulary tables."""
    experts: int
    top_k: int
    context: int
    shared_experts: int = 0


@dataclass(frozen=True)
class Physics:
    """Computes figures of models and machines. The methods raise UserError for an unknown model, machine or precision."""

    own: Mapping[tuple[str, str], Weights] = field(default_factory=dict)
    """Weights of a run by (model, precision). They take precedence over the catalogue."""

    def shape(self, model: str) -> Shape:
        found = next((weights.model for (name, _), weights in self.own.items() if name == model), None) or need_model(model).model
        experts = found.experts
        active = float(found.active("none")), float(found.active("both"))
        counts = (experts.count, experts.top_k) if experts else (0, 0)
        return Shape(float(found.params), active, *counts, found.max_context, experts.shared // experts.width if experts else 0)

    def native(self, model: str) -> str | None:
        """The precision of the published checkpoint; None if the catalogue lacks the model."""
        entry = find_model(model)
        return entry.native if entry else None

    def parameters(self, model: str) -> float:
        return self.shape(model).total

    def weights_gb(self, model: str, precision: str) -> float:
        return self._weights(model, precision).bytes / GB

    def memory_gb(self, hardware: str) -> float:
        machine = read_machine(hardware)
        return machine.count * machine.device.usable / GB

    def device(self, hardware: str) -> tuple[str, int]:
        """Name of the device in the catalogue, and the number of devices."""
        machine = read_machine(hardware)
        return machine.device.name, machine.count

    def bandwidth_gb_s(self, hardware: str) -> float:
        machine = read_machine(hardware)
        return machine.count * machine.device.bandwidth / GB

    def host_gb_s(self, hardware: str) -> float:
        """Bandwidth of host memory; a typical value if the catalogue has none."""
        host = read_machine(hardware).host
        return (host.bandwidth if host else HOST_BANDWIDTH) / GB

    def ceiling(self, claim: Serving, batch: int) -> Ceiling:
        """The roofline of one decode step of `batch` requests, including the KV cache of the stated lengths. Never falls with the batch."""
        setting, context = self._setting(claim), _context(claim)
        step = decode(setting.favoured, batch, context)
        even = decode(setting, batch, context).tokens_per_s if setting.routing else None
        return Ceiling(step.tokens_per_s, _LIMITS[step.bottleneck], even)

    def largest_batch(self, claim: Serving) -> int:
        """Number of requests of the stated lengths that fit next to the weights; a very large number if no length is stated."""
        setting = self._setting(claim)
        context = max(1, (claim.isl or 0) + (claim.osl or 0))
        nothing = Reserve(runtime=0.0, chunk=0)  # the most favourable case: only weights and KV cache take memory
        return fit(
            setting.weights, setting.machine, setting.parallelism, context=context, concurrency=1, kv_bits=setting.kv_bits, reserve=nothing
        ).max_concurrency  # fmt: skip

    def host_split(self, claim: Serving) -> HostSplit:
        """Keep on the devices what fits or is stated (first the weights that every token reads, then experts), the rest on the host."""
        setting = self._setting(claim)
        weights, machine = setting.weights, setting.machine
        room = claim.device_gb * GB if claim.device_gb else machine.count * machine.device.usable
        offload = _most_kept(weights, room)
        on_device, on_host = split(weights, offload)
        hosted = replace(machine, host=machine.host or Host(on_host.bytes))
        placed = replace(setting, machine=hosted, offload=offload)
        even, best = (decode(each, claim.concurrency or 1, _context(claim)) for each in (placed, placed.favoured))
        device_s = sum(seconds for name, seconds in best.memory.items() if name != "host")
        return HostSplit(on_device.bytes / GB, on_host.bytes / GB, device_s, even.bytes["host"] / GB, best.time_s)

    def _weights(self, model: str, name: str, *, gguf: bool = False) -> Weights:
        return self.own.get((model, name)) or _catalogue_weights(model, name, gguf)

    def _setting(self, claim: Serving) -> Setting:
        """The claim as a roofline setting. If it states no parallelism, tensor parallelism over all devices is used where possible.

        UserError if the engine's options make the bytes or the steps of a token unknown.
        """
        placed = placement_of(claim.options)
        if isinstance(placed, str):
            raise UserError(placed)
        if placed.speculative:
            raise UserError("speculative decoding, and the acceptance rate is unknown")
        weights = self._weights(claim.model, claim.precision or "", gguf=claim.engine in GGUF_ENGINES)
        machine = read_machine(claim.hardware or "")
        parallelism = Parallelism(claim.tp, claim.pp, claim.dp_replicas, claim.attention_dp, claim.ep)
        widest = Parallelism(tp=machine.count)
        if parallelism == Parallelism() and claim.copies == 1 and problem(weights.model, widest) is None:
            parallelism = widest
        return Setting(weights, machine, parallelism, placed.kv_bits)


@cache
def _catalogue_weights(model: str, name: str, gguf: bool) -> Weights:
    return weigh(need_model(model).model, precision(name, gguf=gguf))


def _context(claim: Serving) -> float:
    """Length of a sequence halfway through its output, in tokens; 0 if the prompt length is not stated."""
    return claim.isl + (claim.osl or 0) / 2 if claim.isl is not None else 0.0


def _most_kept(weights: Weights, room: float) -> Offload:
    """The least offload that fits into `room` bytes: experts first; whole layers if all experts on the host are not enough."""
    experts = weights.model.experts
    kept = [Offload(kept=count) for count in range(experts.count, -1, -1)] if experts else []
    blocks = [Offload(blocks=count) for count in range(len(weights.model.layers) + 1)]
    return next((each for each in (*kept, *blocks) if split(weights, each)[0].bytes <= room), blocks[-1])
