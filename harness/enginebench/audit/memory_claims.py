"""Judges claims about memory: a model fits, it needs so many devices, its cache has a size. Weights alone unless a context is stated."""

from __future__ import annotations

import math

from enginebench.audit.arithmetic import GIB, SIZE_TOLERANCE, close
from enginebench.audit.finding import Judged, apart
from enginebench.audit.kinds import CacheSize, Fits
from enginebench.audit.physics import LADDER, Physics

_ROOM = 0.25
"""Up to this share of memory beside the weights, a cache of unknown size may need one more device."""
_DEVICES = 4096


def fits(claim: Fits, physics: Physics) -> Judged:
    if claim.needs is not None:
        return _needs(claim, claim.needs, claim.precision, physics) if claim.precision else _needs_in_some(claim, claim.needs, physics)
    memory = claim.gb or physics.memory_gb(claim.hardware or "")
    where = f"{memory:g} GB are stated" if claim.gb else f"{claim.hardware} has {memory:.1f} GB"
    if claim.gb and claim.hardware and claim.gb > physics.memory_gb(claim.hardware):
        return Judged("impossible as stated", [f"{claim.hardware} has {physics.memory_gb(claim.hardware):.1f} GB, not {claim.gb:g}"])
    if claim.precision is None:
        return _in_some_precision(claim, memory, where, physics)
    needed, words = _needed(claim, claim.precision, physics)
    reason = f"stated: {'fits' if claim.fits else 'does not fit'}; {words}, {where}"
    if (needed <= memory) == claim.fits:
        return Judged("plausible", [reason])
    return Judged("impossible as stated" if claim.fits else "inconsistent", [reason], apart(needed, memory))


def _needed(claim: Fits, precision: str, physics: Physics) -> tuple[float, str]:
    """GB of weights and, if a context is stated, of the cache; in words."""
    weights = physics.weights_gb(claim.model, precision)
    if claim.context is None:
        return weights, f"the weights take {weights:.1f} GB"
    cache = physics.cache_gb(claim.model, claim.context, claim.kv_dtype)[0] * claim.concurrency
    return weights + cache, f"weights {weights:.1f} GB and cache {cache:.1f} GB"


def _in_some_precision(claim: Fits, memory: float, where: str, physics: Physics) -> Judged:
    """Without a stated precision: whether there is one that decides."""
    native, widest = physics.native(claim.model) or "f16", physics.widest(claim.model, memory)
    size = _needed(claim, native, physics)[0]
    if widest is None:
        least = physics.weights_gb(claim.model, "iq1_s")
        reason = f"even in iq1_s the weights take {least:.1f} GB, {where}: a part would have to be in host memory, which is not stated"
        return Judged("impossible as stated" if claim.fits else "plausible", [reason], least / memory if claim.fits else 1.0)
    if size <= memory:
        return Judged("plausible" if claim.fits else "inconsistent", [f"in {native}, as it is published, it takes {size:.1f} GB, {where}"])
    narrow = f"{widest} ({physics.weights_gb(claim.model, widest):.1f} GB) fits, {native} ({size:.1f} GB) does not: {where}"
    return Judged("not enough stated", [f"not stated: precision; {narrow}"])


def _needs_in_some(claim: Fits, stated: int, physics: Physics) -> Judged:
    """Without a stated precision: as it is published, else whether there is one in which the claim holds."""
    published = _needs(claim, stated, physics.native(claim.model) or "f16", physics)
    if published.verdict == "plausible":
        return published
    held = (found for name in LADDER if (found := _needs(claim, stated, name, physics)).verdict == "plausible")
    other = next(held, None)
    return Judged("not enough stated", ["not stated: precision", *other.reasons, *published.reasons]) if other else published


def _needs(claim: Fits, stated: int, precision: str, physics: Physics) -> Judged:
    hardware = claim.hardware or ""
    one = physics.memory_gb(hardware) / physics.device(hardware)[1]
    needed, words = _needed(claim, precision, physics)
    least = math.ceil(needed / one - 1e-9)
    spread = next((count for count in _powers() if count >= least and physics.divides(claim.model, count)), least)
    has = f"{words} in {precision}; a device has {one:.1f} GB, so {least} hold {'it' if least == 1 else 'them'}"
    if stated < least:
        return Judged("impossible as stated", [f"{has}, not {stated}"], least / stated)
    if stated == least:
        return Judged("plausible", [has])
    if stated <= spread:
        return Judged("plausible", [f"{has}, and tensor parallelism takes {spread}"])
    left = spread * one - needed
    if claim.context is None and left < _ROOM * spread * one:
        return Judged(
            "not enough stated",
            [f"{has}; {spread} leave {left:.1f} GB for the cache: whether that is enough depends on contexts and batch"],
        )
    return Judged("inconsistent", [f"{has}; {spread} leave {left:.1f} GB, so {stated} are not needed"], stated / spread)


def _powers() -> list[int]:
    return [1 << exponent for exponent in range(_DEVICES.bit_length())]


def cache_size(claim: CacheSize, physics: Physics) -> Judged:
    """Accepts GB and GiB, and caches that keep the whole context for layers with a sliding window."""
    windowed, whole = (size * claim.concurrency for size in physics.cache_gb(claim.model, claim.tokens, claim.kv_dtype, claim.layers))
    stated, unit, factor = (claim.gb, "GB", 1.0) if claim.gb is not None else (claim.kb or 0.0, "KB", 1e6)
    shown = f"{windowed * factor:.3g} {unit}" + (f" ({whole * factor:.3g} without sliding windows)" if whole > 1.02 * windowed else "")
    binary = GIB if unit == "GB" else 1.024
    for size, words in ((windowed, ""), (whole, ", if the whole context is kept for layers with a sliding window")):
        if any(close(stated * scale, size * factor, SIZE_TOLERANCE / 2) for scale in (1.0, binary)):
            return Judged("plausible", [f"computed: {shown}{words}"])
    return Judged("inconsistent", [f"the cache takes {shown}, not {stated:g} {unit}"], apart(stated, windowed * factor))
