"""Determines the catalogue machine of a deployment, as stated, detected here, or recorded in a run; None if it is not in the catalogue."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import psutil

from enginebench.domain import JSON
from enginebench.errors import UserError
from enginebench.machine.accelerators import Gpu
from enginebench.physics.catalogue import THIS_CPU, need_device, read_machine
from enginebench.physics.machine import Device, Host, Machine, split_machine

ANYTHING = "any"
"""`--hardware any`: no check against a machine."""
BANDWIDTH = "memory_bandwidth"
"""Key in the facts of a run: bytes/s that its CPU reads or copies, measured at the start of the run."""


def stated_machine(text: str) -> Machine | None:
    """Parse '4xh100' or '1xrtx4090+96gb'; None for 'cpu' (no limit is checked, nothing measured) and 'any'. UserError if it is unknown."""
    found = split_machine(text)
    return None if text == ANYTHING or (found and found[1] == THIS_CPU) else read_machine(text)


def local_machine(gpus: Sequence[Gpu]) -> Machine | None:
    """The catalogue entry of this machine's accelerators, with their reported memory and this host's memory."""
    name = machine_named(gpu.name for gpu in gpus)
    if name is None:
        return None
    machine = read_machine(name)
    memory = min((gpu.memory_bytes for gpu in gpus if gpu.memory_bytes), default=None)
    device = replace(machine.device, memory=float(memory)) if memory else machine.device
    return replace(machine, device=device, host=Host(float(psutil.virtual_memory().total)))


def machine_named(gpus: Iterable[str]) -> str | None:
    """'8xh100-sxm-80gb' for accelerators with these reported names; None if they are unknown or differ."""
    names = list(gpus)
    if len(set(names)) != 1:
        return None
    words = [word for word in re.split(r"[^a-z0-9]+", names[0].lower()) if word]
    spans = [(begin, end) for begin in range(len(words)) for end in range(begin + 1, len(words) + 1)]
    for begin, end in sorted(spans, key=lambda span: span[0] - span[1]):  # the longest part of the name that is a device name
        word = "-".join(words[begin:end])
        try:
            if word != THIS_CPU:
                return f"{len(names)}x{need_device(word).name}"
        except UserError:
            continue
    return None


# -- of a run --------------------------------------------------------------------------------------------------------------------


def gpus_of(facts: Mapping[str, JSON]) -> list[str]:
    """The names of the accelerators in a run's facts."""
    found = facts.get("gpus")
    return [str(gpu.get("name")) for gpu in found if isinstance(gpu, dict)] if isinstance(found, list) else []


def machine_of_run(facts: Mapping[str, JSON], hardware: JSON, gpus: int | None) -> Machine | None:
    """The machine of a cell; None if unknown.

    facts: of the run. Its accelerators take precedence over `hardware`, which the scenario stated. gpus: devices of the deployment. Without
    accelerators and statement, or if the deployment uses no devices, the machine is the CPU.
    """
    names = gpus_of(facts)
    if gpus == 0 or (not names and hardware in (None, THIS_CPU)):
        return _cpu(facts)
    if (name := machine_named(names)) is not None:
        return read_machine(name)
    try:
        return stated_machine(hardware) if isinstance(hardware, str) else None
    except UserError:
        return None  # a name that is no longer in the catalogue


def _cpu(facts: Mapping[str, JSON]) -> Machine | None:
    """The CPU with its measured memory bandwidth. Compute is unlimited, because it was not measured."""
    bandwidth, memory = facts.get(BANDWIDTH), facts.get("memory_bytes")
    if not isinstance(bandwidth, int | float) or not isinstance(memory, int | float):
        return None
    return Machine(Device(THIS_CPU, float(memory), float(bandwidth), {"bf16": math.inf}, node=1))
