"""Finds what fits: the smallest machines of the catalogue for a model, and the least offload on a device that is too small."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from enginebench.domain import Parallelism
from enginebench.physics.machine import Device, Machine
from enginebench.physics.memory import Fit, fit
from enginebench.physics.offload import Offload
from enginebench.physics.sharding import devices_of, problem

COUNTS = (1, 2, 4, 8, 16, 32)
"""Numbers of devices to try."""


def choose_parallelism(
    devices: int, *, tp: int | None, pp: int = 1, dp_replicas: int = 1, attention_dp: int = 1, ep: int | None = None
) -> Parallelism:
    """The requested parallelism. tp None: all devices. ep None: no expert parallelism; ep 0: over all tensor-parallel ranks."""
    ranks = tp or max(1, devices // (pp * dp_replicas))
    return Parallelism(ranks, pp, dp_replicas, attention_dp, ranks if ep == 0 else ep or 1)


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
    found = [next((each for each in _growing(asked, device) if each.fits), None) for device in devices]
    return sorted((each for each in found if each), key=lambda each: each.machine.count * each.machine.device.memory)


def _growing(asked: Fit, device: Device) -> Iterator[Fit]:
    for count in COUNTS:
        over = widened(asked.parallelism, count)
        if devices_of(over) == count and problem(asked.weights.model, over) is None:
            yield fit(
                asked.weights, Machine(device, count), over, context=asked.context, concurrency=asked.concurrency, kv_bits=asked.kv_bits,
                reserve=asked.reserve,
            )  # fmt: skip


def most_on_device(asked: Fit) -> list[Fit]:
    """The deployment with the least offload that fits, for each kind: experts of whole layers, single experts, whole layers.

    Empty if it fits without offload, or if no host memory is stated. Kinds that do not help are left out.
    """
    model, host = asked.weights.model, asked.machine.host
    if host is None or asked.fits:
        return []
    layers, experts = len(model.layers), model.experts
    kinds: list[tuple[range, Callable[[int], Offload]]] = []
    if experts:
        kinds.append((range(layers + 1), lambda n: Offload(expert_layers=n)))
        kinds.append((range(experts.count, -1, -1), lambda n: Offload(kept=n)))
    kinds.append((range(layers + 1), lambda n: Offload(blocks=n)))
    found = (_first(asked, [kind(n) for n in steps]) for steps, kind in kinds)
    return [each for each in found if each]


def _first(asked: Fit, offloads: list[Offload]) -> Fit | None:
    """The first offload that fits. Each one leaves less on the device than the one before."""
    index = bisect_left(offloads, x=True, key=lambda offload: asked.with_offload(offload).budget.left >= 0)
    found = asked.with_offload(offloads[index]) if index < len(offloads) else None
    return found if found and found.fits and found.offload.anything else None
