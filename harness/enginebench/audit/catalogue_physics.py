"""`Physics` from the catalogues and the roofline of `enginebench.physics`. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from enginebench.audit.claims import Serving
from enginebench.audit.physics import Ceiling, HostSplit, Shape
from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.catalogue import need_model, read_machine
from enginebench.physics.machine import GB, HOST_BANDWIDTH, Host
from enginebench.physics.memory import Reserve, fit
from enginebench.physics.offload import Offload, split
from enginebench.physics.placement import placement_of
from enginebench.physics.roofline import decode
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import problem
from enginebench.physics.weights import Weights, weigh

_LIMITS: Mapping[str, str] = {
    "weights": "the weights read for every token",
    "experts": "reading experts",
    "KV cache": "reading the KV cache",
    "host": "the host's memory",
    "compute": "arithmetic",
    "link": "the links between devices",
}


@dataclass(frozen=True)
class CataloguePhysics:
    """own: weights of a run by (model, precision), which go before the catalogue's."""

    own: Mapping[tuple[str, str], Weights] = field(default_factory=dict)

    def shape(self, model: str) -> Shape:
        found = next((weights.model for (name, _), weights in self.own.items() if name == model), None) or need_model(model).model
        experts = found.experts
        return Shape(
            total=float(found.params),
            active=(float(found.active("none")), float(found.active("both"))),
            experts=experts.count if experts else 0,
            top_k=experts.top_k if experts else 0,
            context=found.max_context,
            shared_experts=experts.shared // experts.width if experts else 0,
        )

    def parameters(self, model: str) -> float:
        return self.shape(model).total

    def weights_gb(self, model: str, precision: str) -> float:
        return self._weights(model, precision).bytes / GB

    def memory_gb(self, hardware: str) -> float:
        machine = read_machine(hardware)
        return machine.count * machine.device.usable / GB

    def device(self, hardware: str) -> tuple[str, int]:
        machine = read_machine(hardware)
        return machine.device.name, machine.count

    def bandwidth_gb_s(self, hardware: str) -> float:
        machine = read_machine(hardware)
        return machine.count * machine.device.bandwidth / GB

    def host_gb_s(self, hardware: str) -> float:
        host = read_machine(hardware).host
        return (host.bandwidth if host else HOST_BANDWIDTH) / GB

    def ceiling(self, claim: Serving, batch: int) -> Ceiling:
        step = decode(self._setting(claim), batch, _context(claim))
        return Ceiling(step.tokens_per_s, _LIMITS[step.rules])

    def largest_batch(self, claim: Serving) -> int:
        setting = self._setting(claim)
        context = max(1, (claim.isl or 0) + (claim.osl or 0))
        nothing = Reserve(runtime=0.0, chunk=0)  # as favourable as can be: nothing but weights and cache takes memory
        return fit(
            setting.weights, setting.machine, setting.parallelism, context=context, concurrency=1, kv_bits=setting.kv_bits, reserve=nothing
        ).max_concurrency  # fmt: skip

    def host_split(self, claim: Serving) -> HostSplit:
        setting = self._setting(claim)
        weights, machine = setting.weights, setting.machine
        room = claim.device_gb * GB if claim.device_gb else machine.count * machine.device.usable
        offload = _most_kept(weights, room)
        here, there = split(weights, offload)
        hosted = replace(machine, host=machine.host or Host(there.bytes))
        step = decode(replace(setting, machine=hosted, offload=offload), claim.concurrency or 1, _context(claim))
        return HostSplit(
            device_gb=here.bytes / GB,
            host_gb=there.bytes / GB,
            device_s=sum(seconds for name, seconds in step.memory.items() if name != "host"),
            host_gb_per_step=step.bytes["host"] / GB,
        )

    def _weights(self, model: str, precision: str) -> Weights:
        return self.own.get((model, precision)) or _weighed(model, precision)

    def _setting(self, claim: Serving) -> Setting:
        """The claim as the roofline takes it. Where no spread is stated, every device takes part if the model can be shared out so.

        UserError where the engine's options leave the bytes or the steps of a token unknown.
        """
        placed = placement_of(claim.options)
        if isinstance(placed, str):
            raise UserError(placed)
        if placed.drafts:
            raise UserError("tokens are drafted, and how many of them are accepted is not known")
        weights = self._weights(claim.model, claim.precision or "")
        machine = read_machine(claim.hardware or "")
        spread = Parallelism(claim.tp, claim.pp, claim.dp_replicas, claim.attention_dp, claim.ep)
        widest = Parallelism(tp=machine.count)
        if spread == Parallelism() and claim.copies == 1 and problem(weights.model, widest) is None:
            spread = widest
        return Setting(weights, machine, spread, placed.kv_bits)


@cache
def _weighed(model: str, precision: str) -> Weights:
    return weigh(need_model(model).model, precision)


def _context(claim: Serving) -> float:
    """Tokens that a sequence holds half way through its answer; 0 where the prompt's length is not stated."""
    return claim.isl + (claim.osl or 0) / 2 if claim.isl is not None else 0.0


def _most_kept(weights: Weights, room: float) -> Offload:
    """The experts that stay on the devices when everything else does; whole layers go to the host where not even that fits."""
    experts = weights.model.experts
    if experts is not None:
        kept = [Offload(kept=count) for count in range(experts.count, -1, -1)]
        found = next((each for each in kept if split(weights, each)[0].bytes <= room), None)
        if found is not None:
            return found
    blocks = [Offload(blocks=count) for count in range(len(weights.model.layers) + 1)]
    return next((each for each in blocks if split(weights, each)[0].bytes <= room), blocks[-1])
