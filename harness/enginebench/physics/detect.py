"""Which machine a plan or a run is about, by one rule: what the command states, else what the scenario states, else what is detected.

Detected accelerators are matched by the exact names that drivers report. None where there is no such machine in the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import psutil

from enginebench.domain import JSON
from enginebench.errors import UserError
from enginebench.machine.accelerators import Gpu
from enginebench.physics.catalogue import ANYTHING, THIS_CPU, driver_names, need_device, read_hardware, read_machine, unknown_device
from enginebench.physics.machine import CPU_CACHE_S, GIB, Device, Host, Machine

_WHOLE = 0.9
"""Share of a device's memory below which a reported device is a slice of it."""
BANDWIDTH = "memory_bandwidth"
"""Key in the facts of a run: bytes/s that its CPU reads or copies, measured at the start of the run."""
_MIG, _CORES = "mig.mode.current", "sppci_cores"


def stated_hardware(*said: JSON) -> str | None:
    """The first statement that names hardware: of the command, then of the scenario. None: what is detected counts."""
    return next((each for each in said if isinstance(each, str) and each != ANYTHING), None)


def stated_machine(text: str) -> Machine | None:
    """Parse '4xh100' or '1xrtx4090+96gb'; None for 'cpu' (no limit is checked, nothing measured) and 'any'. UserError if it is unknown."""
    return None if text == ANYTHING or is_cpu(text) else read_machine(text)


def is_cpu(text: str) -> bool:
    return read_hardware(text).name == THIS_CPU


def local_machine(gpus: Sequence[Gpu]) -> Machine | None:
    """The catalogue entry of this machine's accelerators, with their reported memory and this host's memory; None if there is none.

    A name that only contains that of a device is another one: an H100 PCIe, a laptop's RTX 4090, a MIG slice.
    """
    device = _same(gpus)
    if device is None:
        return None
    host = float(psutil.virtual_memory().total)
    return Machine(_sized(device, gpus, host), len(gpus), None if device.unified else Host(host))


def count_alike(hardware: str, gpus: Sequence[Gpu]) -> int | None:
    """How many of these accelerators are the stated device; None where that cannot be told: it has no name of a driver in the catalogue.

    A device is another one if its driver gives it another name, or if that name stands for several devices and its memory is another's.
    """
    name = read_hardware(hardware).name
    try:
        device = need_device(name) if name not in (THIS_CPU, ANYTHING) else None
    except UserError:
        return None
    if device is None or device.unified or read_hardware(hardware).figures is not None:
        return None
    called = {reported for reported, meant in driver_names().items() if device.name in meant}
    alike = [gpu for gpu in gpus if gpu.name.strip().lower() in called]
    return sum((known := _known(gpu)) is None or known.name == device.name for gpu in alike) if called else None


def undetected(gpus: Sequence[Gpu]) -> UserError | None:
    """Why these accelerators are no machine of the catalogue, and how to add them; None if they are, or if there are none."""
    if not gpus or _same(gpus) is not None:
        return None
    if len({gpu.name for gpu in gpus}) > 1:
        names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
        return UserError(f"accelerators of several kinds: {names}", key="hardware", advice="state those that are used: --hardware 1xh100")
    if _listed(gpus[0]):
        what = f"a slice of a {gpus[0].name}, or one with another memory, is not in the catalogue"
        return UserError(what, key="hardware", advice=unknown_device(gpus[0].name).advice)
    return unknown_device(gpus[0].name, driver=True)


def _same(gpus: Sequence[Gpu]) -> Device | None:
    """The device that all of them are."""
    kinds = {device.name: device for gpu in gpus if (device := _known(gpu)) is not None}
    known = all(_known(gpu) is not None for gpu in gpus)
    return next(iter(kinds.values())) if known and len(kinds) == 1 else None


def _known(gpu: Gpu) -> Device | None:
    """The device of the catalogue that reports this name and, if several do, this memory. None for a slice of one."""
    if gpu.detail.get(_MIG) == "Enabled":
        return None
    found = [need_device(name) for name in _listed(gpu)]
    memory = gpu.memory_bytes
    if memory is None:
        return found[0] if len(found) == 1 else None
    whole = [device for device in found if device.unified or memory >= _WHOLE * device.memory]
    return max(whole, key=lambda device: device.memory, default=None)


def _listed(gpu: Gpu) -> Sequence[str]:
    """Apple's chips of one name differ in bandwidth with the cores of their GPU."""
    name, cores = gpu.name.strip().lower(), gpu.detail.get(_CORES)
    exact = driver_names().get(f"{name} ({cores} cores)") if cores else None
    return exact or driver_names().get(name) or ()


def _sized(device: Device, gpus: Sequence[Gpu], host: float | None) -> Device:
    """With the memory that is reported; of a device that shares the host's, the size next to both together."""
    reported = min((gpu.memory_bytes for gpu in gpus if gpu.memory_bytes), default=None)
    if device.unified and device.sizes:
        both = (reported or 0) + (host or 0)
        return replace(device, memory=min(device.sizes, key=lambda size: abs(size * GIB - both)) * GIB) if both else device
    return replace(device, memory=float(reported)) if reported else device


def cpu_machine() -> Machine:
    """The CPU of this machine with its memory bandwidth, which takes half a second to measure. Compute is unlimited: it is not measured."""
    import psutil

    from enginebench.physics.this_cpu import memory_bandwidth

    return _cpu_with(float(psutil.virtual_memory().total), memory_bandwidth())


# -- of a run --------------------------------------------------------------------------------------------------------------------


def gpus_of(facts: Mapping[str, JSON]) -> list[Gpu]:
    """The accelerators in a run's facts."""
    found = facts.get("gpus")
    return [_gpu(gpu) for gpu in found if isinstance(gpu, dict)] if isinstance(found, list) else []


def hardware_of_run(facts: Mapping[str, JSON], *said: JSON) -> str | None:
    """What is stated about the hardware of a run, else the accelerators in its facts; their own names if the catalogue lacks them.

    None for a run without accelerators.
    """
    found = gpus_of(facts)
    if (stated := stated_hardware(*said)) or not found:
        return stated
    device = _same(found)
    return f"{len(found)}x{device.name}" if device else ", ".join(dict.fromkeys(gpu.name for gpu in found))


def machine_of_run(facts: Mapping[str, JSON], hardware: JSON, gpus: int | None) -> Machine | None:
    """The machine of a cell; None if unknown.

    hardware: what the scenario or the command stated; it takes precedence over the accelerators in `facts`, the facts of the run. gpus:
    devices of the deployment. Without accelerators and statement, or if the deployment uses no devices, the machine is the CPU.
    """
    stated, found = stated_hardware(hardware), gpus_of(facts)
    try:
        if gpus == 0 or (is_cpu(stated) if stated else not found):
            return _cpu(facts)
        if stated:
            return read_machine(stated)
    except UserError:
        return None  # a name that is no longer in the catalogue
    device, memory = _same(found), facts.get("memory_bytes")
    return Machine(_sized(device, found, memory if isinstance(memory, int | float) else None), len(found)) if device else None


def _gpu(facts: Mapping[str, JSON]) -> Gpu:
    memory, detail = facts.get("memory_bytes"), facts.get("detail")
    known = {key: str(value) for key, value in detail.items()} if isinstance(detail, dict) else {}
    return Gpu(str(facts.get("name")), memory if isinstance(memory, int) else None, detail=known)


def _cpu(facts: Mapping[str, JSON]) -> Machine | None:
    """The CPU with its measured memory bandwidth. Compute is unlimited, because it was not measured."""
    bandwidth, memory = facts.get(BANDWIDTH), facts.get("memory_bytes")
    if not isinstance(bandwidth, int | float) or not isinstance(memory, int | float):
        return None
    return _cpu_with(float(memory), float(bandwidth))


def _cpu_with(memory: float, bandwidth: float) -> Machine:
    return Machine(Device(THIS_CPU, memory, bandwidth, {"bf16": math.inf}, node=1, cache=CPU_CACHE_S * bandwidth, reached=1.0))
