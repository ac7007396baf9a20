"""How weights and caches are shared out over devices by the five kinds of parallelism, as serving engines do it.

Tensor parallelism splits attention by heads and every MLP by width; the vocabulary tables by rows; norms, the router and the
down-projections of latent attention are on every rank, and so are keys and values where there are more ranks than such heads. Expert
parallelism gives whole experts to ranks in place of slices: the same bytes. Attention data parallelism copies attention and splits
the sequences. Pipeline stages are consecutive layers, as equal in number as can be. Knows no device and no bytes/s.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping

from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.geometry import Attention, Model, Role
from enginebench.physics.weights import Stored, Weights

REPLICATED = frozenset({Role.LATENT, Role.ROUTER, Role.NORM, Role.OTHER})
"""What every rank of a stage holds whole."""


def devices_of(parallelism: Parallelism) -> int:
    """Devices that it takes."""
    return parallelism.tp * parallelism.pp * parallelism.dp_replicas


def attention_ranks(parallelism: Parallelism) -> int:
    """Ranks that share the attention of one sequence."""
    return parallelism.tp // parallelism.attention_dp


def problem(model: Model, parallelism: Parallelism) -> str | None:
    """Why this model cannot be shared out so, or None."""
    p, experts = parallelism, model.experts
    for name, value in (("attention_dp", p.attention_dp), ("ep", p.ep)):
        if p.tp % value:
            return f"{name}={value} does not divide tp={p.tp}"
    ranks, attention = attention_ranks(p), model.layers[0].attention
    if attention.heads % ranks:
        return f"{attention.heads} heads cannot be shared equally by {ranks} ranks"
    kv = attention.kv_heads
    if not attention.latent and kv % ranks and ranks % kv:
        return f"{kv} key-value heads can neither be shared nor copied equally by {ranks} ranks"
    if p.pp > len(model.layers):
        return f"{len(model.layers)} layers do not make {p.pp} stages"
    if p.ep > 1 and experts is None:
        return "a dense model has no experts to share (ep)"
    if experts and experts.count % p.ep:
        return f"{experts.count} experts cannot be shared equally by {p.ep} ranks"
    if experts and experts.width % (p.tp // p.ep):
        return f"an expert of width {experts.width} cannot be split by {p.tp // p.ep} ranks"
    dense = max(layer.dense for layer in model.layers)
    if dense % p.tp:
        return f"an MLP of width {dense} cannot be split by {p.tp} ranks"
    return None


def check(model: Model, parallelism: Parallelism) -> None:
    """As `problem`, but a UserError."""
    why = problem(model, parallelism)
    if why:
        raise UserError(f"{model.name}: {why}", key="parallelism", advice="write a number of ranks that divides it")


def ways(role: Role, attention: Attention, parallelism: Parallelism) -> int:
    """Into how many equal pieces the weights of a role are split among the ranks of a stage; a rank holds one piece."""
    ranks = attention_ranks(parallelism)
    if role in REPLICATED:
        return 1
    if role == Role.ATTENTION:
        return ranks
    if role == Role.KEYS:
        return min(ranks, attention.kv_heads)
    return parallelism.tp


def cache_ways(attention: Attention, parallelism: Parallelism) -> int:
    """Into how many pieces the KV cache of one sequence is split; a latent is the same for all heads and kept whole by every rank."""
    return 1 if attention.latent else min(attention_ranks(parallelism), attention.kv_heads)


def stages(layers: int, count: int) -> list[range]:
    """Consecutive layers of each pipeline stage; their numbers differ by one at most."""
    bounds = [i * layers // count for i in range(count + 1)]
    return [range(begin, end) for begin, end in itertools.pairwise(bounds)]


def stage_of(part: Stored, layers: int, of: list[range], *, tied: bool) -> list[int]:
    """The stages that hold a part. The first has the input table, the last the head, which may be the same table."""
    if part.layer < 0:
        return sorted({0, len(of) - 1}) if tied and part.role == Role.EMBEDDING else [0]
    if part.layer >= layers:
        return [len(of) - 1]
    return [next(i for i, stage in enumerate(of) if part.layer in stage)]


def per_device(weights: Weights, parallelism: Parallelism) -> list[Mapping[Role, float]]:
    """For each pipeline stage, the bytes of each role that one of its devices holds."""
    model = weights.model
    of = stages(len(model.layers), parallelism.pp)
    out: list[dict[Role, float]] = [defaultdict(float) for _ in of]
    for part in weights.parts:
        attention = model.layers[min(max(part.layer, 0), len(model.layers) - 1)].attention
        for stage in stage_of(part, len(model.layers), of, tied=model.tied):
            out[stage][part.role] += part.bytes / ways(part.role, attention, parallelism)
    return [dict(each) for each in out]


def cache_per_device(model: Model, parallelism: Parallelism, context: float, kv_bits: float, first: int = 0) -> list[float]:
    """For each pipeline stage, the bytes of KV cache that one device holds for each sequence it serves, of so many tokens.

    first: layers below it keep their cache elsewhere.
    """
    return [
        sum(
            attention.elements * attention.seen(context) * kv_bits / 8 / cache_ways(attention, parallelism)
            for attention in (model.layers[i].attention for i in stage if i >= first)
        )
        for stage in stages(len(model.layers), parallelism.pp)
    ]
