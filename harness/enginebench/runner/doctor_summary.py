"""What `bench doctor` says first and last: the machine in one line, which built-in scenarios can run here, and what to type next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psutil

from enginebench.domain.formatting import counted, size
from enginebench.engines.installed import Engine
from enginebench.errors import UserError
from enginebench.machine import host
from enginebench.machine.accelerators import gpus
from enginebench.runner.preflight import preflight
from enginebench.runtime.container.client import refusal
from enginebench.scenario.planning import built_in_scenarios, plan

FIRST_ENGINE = "llamacpp"
"""Installs in seconds, and runs on any machine."""
_BEST = ("scout_4xh100", "maverick_8xh100", "mixtral_2gpu", "gpu_smoke", "quickstart")
"""What to run first, where it can run."""


def machine_line() -> str:
    """'AMD EPYC 9654, 96 cores, 755 GiB · 4x NVIDIA H100 80GB HBM3 · Docker'"""
    names = [gpu.name for gpu in gpus()]
    devices = ", ".join(f"{names.count(name)}x {name}" for name in dict.fromkeys(names)) or "no GPU"
    cpu = (host.cpu_name() or "unknown CPU").split(" with ")[0].removesuffix(" Processor")
    processor = f"{cpu}, {counted(host.usable_cores() or 1, 'core')}, {size(psutil.virtual_memory().total)}"
    return f"{processor} · {devices} · {'no Docker' if refusal() else 'Docker'}"


def can_run(engines: Sequence[Engine]) -> tuple[str, str]:
    """Which of the built-in scenarios can run here, whole or in part, with the engines that are installed; and what to type next."""
    found = list(_built_in())
    whole, part = ([name for name, runs in found if (runs == "whole") == complete] for complete in (True, False))
    installed = [engine.name for engine in engines if engine.installs and engine.requirements]
    texts = [f"{', '.join(whole)}" if whole else "", f"a part of {', '.join(part)}" if part else ""]
    text = "; ".join(filter(None, texts)) or "no built-in scenario"
    best = next((name for name in _BEST if name in whole), next(iter(whole), None))
    if best is None and FIRST_ENGINE not in installed:
        return text, f"next: bench engines install {FIRST_ENGINE}"
    return text, f"next: bench run {best}" if best else "next: bench plan quickstart"


def _built_in() -> Iterator[tuple[str, str]]:
    for name in built_in_scenarios():
        try:
            found = preflight(plan(name))
        except UserError:
            continue
        if found.cells and not found.refused:
            yield name, "part" if found.skipped else "whole"
