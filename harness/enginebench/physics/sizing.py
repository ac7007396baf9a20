"""What would fit: the smallest machines of the catalogue, and how much of a model can stay on a device that is too small for it.

Asks `memory.fit` again and again; it knows no arithmetic of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from enginebench.domain import Parallelism
from enginebench.physics.machine import Device, Machine
from enginebench.physics.memory import Fit, fit
from enginebench.physics.offload import Offload
from enginebench.physics.sharding import devices_of, problem

COUNTS = (1, 2, 4, 8, 16, 32)
"""Numbers of devices that are tried."""


def spread(devices: int, *, tp: int | None, pp: int = 1, dp_replicas: int = 1, attention_dp: int = 1, ep: int | None = None) -> Parallelism:
    """The parallelism that was asked for. tp None: all the devices there are. ep None: no expert parallelism; ep 0: over all of tp."""
    ranks = tp or max(1, devices // (pp * dp_replicas))
    return Parallelism(ranks, pp, dp_replicas, attention_dp, ranks if ep == 0 else ep or 1)


def widened(parallelism: Parallelism, devices: int) -> Parallelism:
    """One replica of the same kind over so many devices: what spanned all tensor-parallel ranks still does."""
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
    """For each device, the fewest of them that hold one replica of what was asked; least memory first. Those that never do are left out."""
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
    """The same deployment with as little as possible on the host, in each way there is: whole layers' experts, experts, whole layers.

    Empty where it fits without, or where no host's memory was named. A way that does not help is left out.
    """
    model, host = asked.weights.model, asked.machine.host
    if host is None or asked.fits:
        return []
    layers, experts = len(model.layers), model.experts
    ways: list[tuple[range, Callable[[int], Offload]]] = []
    if experts:
        ways.append((range(layers + 1), lambda n: Offload(expert_layers=n)))
        ways.append((range(experts.count, -1, -1), lambda n: Offload(kept=n)))
    ways.append((range(layers + 1), lambda n: Offload(blocks=n)))
    found = (_first(asked, [way(n) for n in steps]) for steps, way in ways)
    return [each for each in found if each]


def _first(asked: Fit, offloads: list[Offload]) -> Fit | None:
    """The first that fits; each puts less on the device than the one before."""
    low, high = 0, len(offloads)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _with(asked, offloads[middle]).budget.left >= 0 else (middle + 1, high)
    found = _with(asked, offloads[low]) if low < len(offloads) else None
    return found if found and found.fits and found.offload.anything else None


def _with(asked: Fit, offload: Offload) -> Fit:
    return fit(
        asked.weights, asked.machine, asked.parallelism, context=asked.context, concurrency=asked.concurrency, kv_bits=asked.kv_bits,
        reserve=asked.reserve, offload=offload,
    )  # fmt: skip
