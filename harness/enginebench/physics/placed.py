"""A model on hardware: its weights, the machine, its spread over devices, and what lies in the host's memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from enginebench.domain import Parallelism
from enginebench.errors import UserError, did_you_mean
from enginebench.physics import captures
from enginebench.physics.catalogue import read_machine
from enginebench.physics.files import read_weights
from enginebench.physics.machine import GB, Machine
from enginebench.physics.memory import fit
from enginebench.physics.placement import GGUF_ENGINES, KV_BITS
from enginebench.physics.popularity import Popularity, measured, zipf
from enginebench.physics.routing_files import read
from enginebench.physics.weights import NOTHING, Offload, Weights

_ROUNDING = 0.02
"""Share of the active weights below which the input table makes no difference."""


@dataclass(frozen=True)
class PlacedModel:
    weights: Weights
    machine: Machine
    parallelism: Parallelism
    kv_bits: float
    """Bits per element of the KV cache."""
    offload: Offload
    """What lies in the host's memory."""
    precision: str | None = None
    """As it was asked for; None: as published, or the sizes in the file."""
    reference: str = ""
    """As it was asked for: a name of the catalogue, a path, or 'random:...'."""
    engine: str | None = None
    """What runs it, for what is expected; None: any."""
    redundant: int = 0
    """Copies of experts in a layer besides the model's, which balance the ranks of expert parallelism."""

    @cached_property
    def weights_of_gguf(self) -> Weights:
        """As an engine that reads GGUF files stores them in this precision."""
        return read_weights(self.reference, self.precision, gguf=True) if self.reference else self.weights

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of figures about it should know."""
        return *self.weights.notes, *self.machine.device.remarks

    @property
    def title(self) -> str:
        """'llama4-scout in fp8 (107.8 billion weights, 17.2 active, 108 GB), 4x h100-sxm-80gb, tp=4 ep=4'.

        A token reads one row of the input table; whether that counts as active makes a difference in small models with many words.
        """
        model = self.weights.model
        whole, read = model.active("both") / 1e9, model.active("head") / 1e9
        active = f"{whole:.3g} active" if read > (1 - _ROUNDING) * whole else f"{read:.3g} active and {whole - read:.2g} in the input table"
        counted = f"{model.params / 1e9:.4g} billion weights, {active}, {self.weights.bytes / 1e9:.4g} GB"
        return f"{model.name} in {self.weights.precision.name} ({counted}), {self.machine.name}, {self.parallelism.text}"

    def room(self, context: int) -> int:
        """The number of sequences of `context` tokens that memory has room for."""
        tokens = min(max(1, context), self.weights.model.max_context)
        return fit(
            self.weights, self.machine, self.parallelism, context=tokens, concurrency=1, kv_bits=self.kv_bits, offload=self.offload,
            redundant=self.redundant,
        ).max_concurrency  # fmt: skip


def place(
    model: str, hardware: str, *, precision: str | None = None, kv: str = "f16", tp: int | None = None, pp: int = 1, dp_replicas: int = 1,
    attention_dp: int = 1, ep: int | None = None, redundant_experts: int = 0, offload: Offload = NOTHING, host_gb_s: float | None = None,
    engine: str | None = None,
) -> PlacedModel:  # fmt: skip
    """A model on hardware, the input of `fit` and `ceiling`.

    model: a name of the catalogue, the path of a config.json, a folder of safetensors or a .gguf file, 'hf:ORG/NAME', or 'random:...'.
    hardware: '4xh100', '1xrtx4090+128gb' (with the host's memory), or 'cpu' for this machine's CPU, which is measured.
    precision: 'fp8', 'f16', 'q4_k_m', ...; None: as published, or the sizes in the file.
    kv: element type of the KV cache. tp: ranks that share each layer; None: all devices. pp: pipeline stages. dp_replicas: full copies.
    attention_dp: copies of the attention within tp. ep: ranks that share the experts; 0: all of tp; None: no expert parallelism.
    redundant_experts: copies of experts in a layer besides the model's, so that e.g. 256 + 32 of them are divided among 72 ranks.
    offload: what lies in the host's memory. host_gb_s: bandwidth of the host's memory in GB/s; None: a usual one.
    engine: what runs it ('vllm', 'llamacpp'), for what is expected and for the meaning of a precision in GGUF files; None: any.
    UserError for an unknown model, precision, type or device, and for a spread that does not divide the model.
    """
    machine = read_machine(hardware, host_bandwidth=host_gb_s * GB if host_gb_s else None)
    parallelism = choose_parallelism(machine.count, tp=tp, pp=pp, dp_replicas=dp_replicas, attention_dp=attention_dp, ep=ep)
    weights = read_weights(model, precision, gguf=engine in GGUF_ENGINES)
    return PlacedModel(weights, machine, parallelism, kv_bits(kv), offload, precision, model, engine, redundant_experts)


def choose_parallelism(
    devices: int, *, tp: int | None, pp: int = 1, dp_replicas: int = 1, attention_dp: int = 1, ep: int | None = None
) -> Parallelism:
    """The requested parallelism. tp None: all devices. ep None: no expert parallelism; ep 0: over all tensor-parallel ranks."""
    ranks = tp or max(1, devices // (pp * dp_replicas))
    return Parallelism(ranks, pp, dp_replicas, attention_dp, ranks if ep == 0 else ep or 1)


def kv_bits(kv: str) -> float:
    """Bits per element of a KV cache type, scales included. UserError for an unknown type."""
    if kv not in KV_BITS:
        raise UserError(f"unknown type of KV cache '{kv}'", key="kv", advice=did_you_mean(kv, KV_BITS))
    return KV_BITS[kv]


def read_popularity(routing: str, weights: Weights, reference: str) -> Popularity | None:
    """How popular each expert is. None: uniform routing, or a dense model.

    routing: 'even'; 'zipf:1.1'; a file of expert counts; or 'captured', what `bench routing` counted on the model with this reference, of
    all inputs but random ids, or 'captured:INPUT'. reference: a name of the catalogue, a path, or 'random:...'. UserError if there is none.
    """
    experts = weights.model.experts
    if routing == "even" or experts is None:
        return None
    if routing.startswith("zipf:"):
        try:
            return zipf(experts.count, experts.top_k, float(routing.removeprefix("zipf:")))
        except ValueError:
            raise UserError(f"--routing {routing}: no exponent", advice="write for example zipf:1.0") from None
    kind, _, wanted = routing.partition(":")
    if kind == captures.CAPTURED:
        found = captures.likely(captures.need(reference, experts.count), wanted)
    elif Path(routing).is_file():
        found = captures.likely(read(Path(routing)))
    else:
        advice = "write even, zipf:EXPONENT, captured, or a file that bench routing kept"
        raise UserError(f"--routing {routing}: no such file", advice=advice)
    if found.experts != experts.count:
        raise UserError(f"{routing} counts {found.experts} experts, {weights.model.name} has {experts.count}", key="routing")
    return measured(found, experts.top_k)
