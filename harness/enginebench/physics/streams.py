"""Weights of a block besides its mixer and its MLP, from the fields of a config: norms, and what mixes and adds to the residual stream.

Blocks may read a sum of earlier blocks (attention over residuals), several streams (hyper-connections), or embeddings of their own.
"""

from __future__ import annotations

import math
from functools import cache

from enginebench.physics.fields import Fields


def block(fields: Fields, layer: int, mixer: str, *, parts: int, experts: bool) -> int:
    """Weights of the norms of a block, and of what mixes streams around it. parts: how many of mixer and MLP it has."""
    hidden, defaults = fields.need("hidden"), fields.defaults
    norms = 2 * parts if fields.get("sandwich") else defaults.get("norms", parts)
    norms += defaults.get("expert_norms", 0) if experts else 0
    norms *= 1 + bool(defaults.get("norm_bias"))
    norms += 2 * (fields.get("norm_gate") or 0) * (1 + experts)
    if fields.get("residual_blocks"):
        norms += _residual_queries(fields, layer, mixer)
    if fields.get("laurel"):
        norms += 1
    if _own(fields):
        norms += 1
    norms += 2 * (fields.get("short_conv") or 0)
    count = fields.get("alternates") or 0
    alternating = 2 * hidden + count * (hidden + count + count**2) if count else 0
    scale = bool(defaults.get("dense_scale") and not experts)
    return int(norms * hidden + alternating + scale + _mixing(fields, after=False))


def after_last(fields: Fields) -> int:
    """Weights after the last layer, without the head."""
    hidden, defaults = fields.need("hidden"), fields.defaults
    norms = defaults.get("final_norms", 1) * (1 + bool(defaults.get("norm_bias")))
    if fields.get("residual_blocks"):
        norms += 2 if defaults.get("residual_kind") != "queries" else 1
    if last := fields.get("loop_to"):
        norms += 4 * (last - fields.need("loop_from"))
    return int(norms * hidden + _own(fields) + _mixing(fields, after=True))


def beside(fields: Fields, layer: int) -> int:
    """Weights of matrices beside the MLP: low-rank paths, gates of embeddings, and of messages between the passes of a loop."""
    hidden = fields.need("hidden")
    found = 2 * hidden * ((fields.get("laurel") or 0) + _own(fields))
    if looped(fields, layer):
        found += 4 * 4 * hidden * (fields.get("loop_rank") or 0)
    if _has_ngrams(fields, layer):
        wide, width = hidden * (fields.get("streams") or 1), fields.get("ngram_width") or hidden
        found += (wide + hidden) * width + wide * (3 + fields.get("ngram_kernel", 4))
    return int(found)


def looped(fields: Fields, layer: int) -> bool:
    """Whether a step passes through a layer more than once."""
    return bool(fields.get("loop_to") and fields.need("loop_from") <= layer < fields.need("loop_to"))


def entry(fields: Fields) -> tuple[int, int]:
    """Weights of further tables, and of matrices before the first layer: of embeddings per layer, and of alternating streams."""
    hidden, own = fields.need("hidden"), _own(fields)
    alternating = 2 * max(0, (fields.get("alternates") or 1) - 1) * hidden**2
    wide = own * fields.need("layers") if own else 0
    return wide * (fields.get("own_vocab") or fields.need("vocab")), wide * hidden + alternating


def ngram_table(fields: Fields, layer: int) -> int:
    """Weights of the table of n-grams of one layer. Every head of every n has a prime number of rows of its own."""
    if not _has_ngrams(fields, layer):
        return 0
    width = fields.get("ngram_width") or fields.need("hidden")
    heads = (fields.get("ngram_size", 3) - 1) * fields.get("ngram_heads", 8)
    place = sorted(fields.get("ngram_layers")).index(layer + 1)
    rows = sum(_primes(fields.need("ngram_vocab"), heads * (place + 1))[heads * place :])
    multiple = fields.get("ngram_multiple", 128)
    return int(math.ceil(rows / multiple) * multiple * (width // heads))


def _has_ngrams(fields: Fields, layer: int) -> bool:
    return layer + 1 in (fields.get("ngram_layers") or ())


def _own(fields: Fields) -> int:
    """Width of the embeddings that every layer has of its own."""
    return int(fields.get("own_embeddings") or 0)


def _residual_queries(fields: Fields, layer: int, mixer: str) -> int:
    """Norms and queries with which mixer and MLP attend to the residual streams of earlier blocks.

    Of the kind 'queries', layers with full attention have one each for queries, keys and values; the first layer has none.
    """
    if fields.defaults.get("residual_kind") != "queries":
        return 4
    full = mixer == "full"
    return 1 + 2 * full + (1 + 2 * full) * (layer > 0)


def _mixing(fields: Fields, *, after: bool) -> int:
    """Weights that mix several residual streams, around a mixer and an MLP, or after the last layer."""
    streams, kind = fields.get("streams") or 0, fields.defaults.get("streams_kind")
    if not streams or kind is None:
        return 0
    wide = streams * fields.need("hidden")
    if kind == "low_rank":
        mixer = wide + 2 * wide * fields.need("streams_rank")
        return mixer if after else 2 * (mixer + streams * wide)
    if after:
        return 0 if kind == "headless" else streams * (wide + 1) + 1
    outputs, scales = (streams * (streams + 2), 3) if kind in ("full", "headless") else (2 * streams, 2)
    return 2 * (outputs * (wide + 1) + scales)


@cache
def _primes(first: int, count: int) -> tuple[int, ...]:
    """The first `count` primes that are no less than `first`."""
    found: list[int] = []
    number = max(2, first)
    while len(found) < count:
        if all(number % divisor for divisor in range(2, math.isqrt(number) + 1)):
            found.append(number)
        number += 1
    return tuple(found)
