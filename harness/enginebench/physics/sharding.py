"""How serving engines split weights and KV cache over devices, for five kinds of parallelism.

Tensor parallelism splits attention by heads, MLPs by width and vocabulary tables by rows. It replicates norms, the router, the
down-projections of latent attention, and keys and values if there are more ranks than such heads. Expert parallelism assigns whole experts
to ranks instead of slices: the same bytes. Attention data parallelism replicates attention and splits the sequences. Pipeline stages are
consecutive layers in nearly equal numbers. Does not know: devices, bandwidths.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache

from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.geometry import Experts, Mixer, Model, Recurrence, Role
from enginebench.physics.weights import Stored, Weights

REPLICATED = frozenset({Role.LATENT, Role.ROUTER, Role.NORM, Role.OTHER})
"""Roles that are replicated on every rank of a stage."""


def devices_of(parallelism: Parallelism) -> int:
    return parallelism.tp * parallelism.pp * parallelism.dp_replicas


def attention_ranks(parallelism: Parallelism) -> int:
    """Ranks that share the attention of one sequence."""
    return parallelism.tp // parallelism.attention_dp


def problem(model: Model, parallelism: Parallelism, redundant: int = 0) -> str | None:
    """Why this model cannot be split so, or None. redundant: copies of experts in a layer besides the model's."""
    p, experts = parallelism, model.experts
    for name, value in (("attention_dp", p.attention_dp), ("ep", p.ep)):
        if p.tp % value:
            return f"{name}={value} does not divide tp={p.tp}"
    if reason := next(filter(None, (_heads_problem(mixer, attention_ranks(p)) for mixer in dict.fromkeys(model.mixers))), None):
        return reason
    if p.pp > len(model.layers):
        return f"{len(model.layers)} layers are too few for {p.pp} stages"
    if p.ep > 1 and experts is None:
        return "a dense model has no experts to divide (ep)"
    if redundant and p.ep == 1:
        return f"{redundant} redundant experts need expert parallelism (ep)"
    held = experts.count + redundant if experts else 0
    if held % p.ep and (p.attention_dp == 1 or p.ep > held):
        also = f" and {redundant} redundant ones" if redundant else ""
        return f"{held - redundant} experts{also} cannot be divided equally among {p.ep} ranks"
    if experts and experts.width % (p.tp // p.ep):
        return f"an expert of width {experts.width} cannot be divided equally among {p.tp // p.ep} ranks"
    dense = max(layer.dense for layer in model.layers)
    if dense % p.tp:
        return f"an MLP of width {dense} cannot be divided equally among {p.tp} ranks"
    return None


def _heads_problem(mixer: Mixer, ranks: int) -> str | None:
    if mixer.heads % ranks:
        what = f"{mixer.heads} heads" if not isinstance(mixer, Recurrence) else f"{mixer.heads} heads ({mixer.kind})"
        return f"{what} cannot be divided equally among {ranks} ranks"
    kv = mixer.kv_heads
    if not mixer.latent and kv % ranks and ranks % kv:
        return f"{kv} key-value heads can neither be divided nor replicated equally among {ranks} ranks"
    return None


def check(model: Model, parallelism: Parallelism, redundant: int = 0) -> None:
    reason = problem(model, parallelism, redundant)
    if reason:
        raise UserError(f"{model.name}: {reason}", key="parallelism", advice="write a number of ranks that divides it")


def shards(role: Role, mixer: Mixer | None, parallelism: Parallelism) -> int:
    """Number of equal shards of the weights of a role among the ranks of a stage; each rank has one."""
    ranks = attention_ranks(parallelism)
    if role in REPLICATED:
        return 1
    if role in (Role.ATTENTION, Role.RECURRENT):
        return ranks
    if role == Role.KEYS:
        return min(ranks, mixer.kv_heads) if mixer else ranks
    return parallelism.tp


def cache_shards(mixer: Mixer, parallelism: Parallelism) -> int:
    """Number of shards of the KV cache or state of one sequence. A latent is common to all heads, so every rank has a copy."""
    return 1 if mixer.latent else min(attention_ranks(parallelism), mixer.kv_heads)


@cache
def stages(layers: int, count: int) -> tuple[range, ...]:
    """The consecutive layers of each pipeline stage. Their numbers differ by at most one."""
    bounds = [i * layers // count for i in range(count + 1)]
    return tuple(range(begin, end) for begin, end in itertools.pairwise(bounds))


def stage_of(part: Stored, layers: int, of: Sequence[range], *, tied: bool) -> list[int]:
    """The stages with a part. The first has the input table, the last the head, which may be the same table."""
    if part.layer < 0:
        return sorted({0, len(of) - 1}) if tied and part.role == Role.EMBEDDING else [0]
    if part.layer >= layers:
        return [len(of) - 1]
    return [next(i for i, stage in enumerate(of) if part.layer in stage)]


def per_device(weights: Weights, parallelism: Parallelism, redundant: int = 0) -> list[Mapping[Role, float]]:
    """For each pipeline stage, the bytes of each role on one of its devices, the one with the most experts."""
    model = weights.model
    of = stages(len(model.layers), parallelism.pp)
    out: list[dict[Role, float]] = [defaultdict(float) for _ in of]
    for part in weights.parts:
        mixer = model.layers[min(max(part.layer, 0), len(model.layers) - 1)].attention
        for stage in stage_of(part, len(model.layers), of, tied=model.tied):
            size = part.bytes / shards(part.role, mixer, parallelism)
            experts = model.layers[part.layer].experts if part.role == Role.EXPERT else None
            out[stage][part.role] += size * (_fullest(experts, parallelism, redundant) if experts else 1.0)
    return [dict(each) for each in out]


def _fullest(experts: Experts, parallelism: Parallelism, redundant: int) -> float:
    """Experts of the fullest rank / the mean without copies. 256 experts are four or three on each of 72 ranks, with 32 copies four."""
    return math.ceil((experts.count + redundant) / parallelism.ep) * parallelism.ep / experts.count


def cache_per_device(model: Model, parallelism: Parallelism, context: float, kv_bits: float, first: int = 0) -> list[float]:
    """For each pipeline stage, the bytes of KV cache and recurrent states on one device per sequence of `context` tokens.

    first: layers below it have them on the host.
    """
    return [
        sum(
            mixer.kept(context, kv_bits) / cache_shards(mixer, parallelism)
            for mixer in (model.layers[i].attention for i in stage if i >= first)
            if mixer
        )
        for stage in stages(len(model.layers), parallelism.pp)
    ]
