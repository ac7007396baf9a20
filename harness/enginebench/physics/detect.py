"""Determines the catalogue machine of a deployment, as stated, detected here, or recorded in a run; None if it is not in the catalogue."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import psutil

from enginebench.domain import JSON
from enginebench.errors import UserError
from enginebench.machine.accelerators import Gpu
from enginebench.physics.catalogue import THIS_CPU, driver_names, read_machine
from enginebench.physics.machine import Device, Host, Machine, split_machine

ANYTHING = "any"
"""`--hardware any`: no check against a machine."""
_WHOLE = 0.9
"""Share of a device's memory below which a reported device is a slice of it."""
BANDWIDTH = "memory_bandwidth"
"""Key in the facts of a run: bytes/s that its CPU reads or copies, measured at the start of the run."""


def stated_machine(text: str) -> Machine | None:
    """Parse '4xh100' or '1xrtx4090+96gb'; None for 'cpu' (no limit is checked, nothing measured) and 'any'. UserError if it is unknown."""
    found = split_machine(text)
    return None if text == ANYTHING or (found and found[1] == THIS_CPU) else read_machine(text)


def local_machine(gpus: Sequence[Gpu]) -> Machine | None:
    """The catalogue entry of this machine's accelerators, with their reported memory and this host's memory.

    None if they have much less memory than the device: a slice of it.
    """
    name = machine_named(gpu.name for gpu in gpus)
    if name is None:
        return None
    machine = read_machine(name)
    memory = min((gpu.memory_bytes for gpu in gpus if gpu.memory_bytes), default=None)
    if memory and machine.device.usable_share == 1.0 and memory < _WHOLE * machine.device.memory:
        return None
    device = replace(machine.device, memory=float(memory)) if memory else machine.device
    return replace(machine, device=device, host=Host(float(psutil.virtual_memory().total)))


def machine_named(gpus: Iterable[str]) -> str | None:
    """'8xh100-sxm-80gb' for accelerators with these reported names; None if they differ, or if the catalogue does not list the name.

    A name that only contains that of a device is another one: an H100 PCIe, a laptop's RTX 4090, a MIG slice.
    """
    names = list(gpus)
    known = driver_names().get(names[0].strip().lower()) if len(set(names)) == 1 else None
    return f"{len(names)}x{known}" if known else None


# -- of a run --------------------------------------------------------------------------------------------------------------------


def gpus_of(facts: Mapping[str, JSON]) -> list[str]:
    """The names of the accelerators in a run's facts."""
    found = facts.get("gpus")
    return [str(gpu.get("name")) for gpu in found if isinstance(gpu, dict)] if isinstance(found, list) else []


def machine_of_run(facts: Mapping[str, JSON], hardware: JSON, gpus: int | None) -> Machine | None:
    """The machine of a cell; None if unknown.

    hardware: what the scenario or the command stated; it takes precedence over the accelerators in `facts`, the facts of the run. gpus:
    devices of the deployment. Without accelerators and statement, or if the deployment uses no devices, the machine is the CPU.
    """
    names = gpus_of(facts)
    if gpus == 0 or (not names and hardware in (None, THIS_CPU)):
        return _cpu(facts)
    try:
        stated = stated_machine(hardware) if isinstance(hardware, str) else None
    except UserError:
        stated = None  # a name that is no longer in the catalogue
    return stated or (read_machine(name) if (name := machine_named(names)) is not None else None)


def _cpu(facts: Mapping[str, JSON]) -> Machine | None:
    """The CPU with its measured memory bandwidth. Compute is unlimited, because it was not measured."""
    bandwidth, memory = facts.get(BANDWIDTH), facts.get("memory_bytes")
    if not isinstance(bandwidth, int | float) or not isinstance(memory, int | float):
        return None
    return Machine(Device(THIS_CPU, float(memory), float(bandwidth), {"bf16": math.inf}, node=1))
