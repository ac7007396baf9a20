"""Which machine of the physics catalogue a deployment runs on: what a person states, the accelerators here, or those a run was made on.

A machine that the catalogue does not know is None, and then nothing is said of it. It knows no model and reckons nothing.
"""

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
"""`--hardware any`: nothing is checked against any machine."""
BANDWIDTH = "memory_bandwidth"
"""Of the facts of a run: bytes/s that its processor reads or copies, measured when the run began."""


def check(text: str) -> None:
    """UserError with advice unless the text names hardware that is known. The processor of this machine is not measured for that."""
    found = split_machine(text)
    if found is None or found[1] != THIS_CPU:
        read_machine(text)


def stated(text: str) -> Machine | None:
    """'4xh100', '1xrtx4090+96gb'; None for 'cpu', which holds whatever this machine holds, and for 'any'. UserError as `check`."""
    check(text) if text != ANYTHING else None
    found = split_machine(text)
    return None if text == ANYTHING or (found and found[1] == THIS_CPU) else read_machine(text)


def here(gpus: Sequence[Gpu]) -> Machine | None:
    """The accelerators of this machine as the catalogue knows them, with the memory that their tool tells of, beside this host's memory."""
    name = machine_named(gpu.name for gpu in gpus)
    if name is None:
        return None
    machine = read_machine(name)
    memory = min((gpu.memory_bytes for gpu in gpus if gpu.memory_bytes), default=None)
    device = replace(machine.device, memory=float(memory)) if memory else machine.device
    return replace(machine, device=device, host=Host(float(psutil.virtual_memory().total)))


def machine_named(gpus: Iterable[str]) -> str | None:
    """'8xh100-sxm-80gb' for the accelerators of a run by the names that their tools gave; None where they are unknown or differ."""
    names = list(gpus)
    if len(set(names)) != 1:
        return None
    words = [word for word in re.split(r"[^a-z0-9]+", names[0].lower()) if word]
    spans = [(begin, end) for begin in range(len(words)) for end in range(begin + 1, len(words) + 1)]
    for begin, end in sorted(spans, key=lambda span: span[0] - span[1]):  # the longest part of the name that is a device's
        word = "-".join(words[begin:end])
        try:
            if word != THIS_CPU:
                return f"{len(names)}x{need_device(word).name}"
        except UserError:
            continue
    return None


# -- of a run --------------------------------------------------------------------------------------------------------------------


def gpus_of(facts: Mapping[str, JSON]) -> list[str]:
    """The names of the accelerators among a run's facts."""
    found = facts.get("gpus")
    return [str(gpu.get("name")) for gpu in found if isinstance(gpu, dict)] if isinstance(found, list) else []


def of_run(facts: Mapping[str, JSON], hardware: JSON, gpus: int | None) -> Machine | None:
    """What a cell of a run ran on. hardware: what the scenario stated; gpus: devices that its deployment takes where it runs on any.

    The accelerators that the run's machine had go before the statement. Without either, or where the deployment takes none, it is
    the processor. None: nobody knows.
    """
    names = gpus_of(facts)
    if gpus == 0 or (not names and hardware in (None, THIS_CPU)):
        return _processor(facts)
    if (name := machine_named(names)) is not None:
        return read_machine(name)
    try:
        return stated(hardware) if isinstance(hardware, str) else None
    except UserError:
        return None  # a name that this version's catalogue has no more


def _processor(facts: Mapping[str, JSON]) -> Machine | None:
    """The processor as far as it was measured: its memory. Its arithmetic is no limit, because nobody knows how fast it can be."""
    bandwidth, memory = facts.get(BANDWIDTH), facts.get("memory_bytes")
    if not isinstance(bandwidth, int | float) or not isinstance(memory, int | float):
        return None
    return Machine(Device(THIS_CPU, float(memory), float(bandwidth), {"bf16": math.inf}, node=1))
