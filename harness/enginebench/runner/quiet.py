"""Is this machine busy with other work before anything is measured? Warns, and waits if that is requested. Never refuses."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from enginebench.domain.formatting import duration, percent
from enginebench.telemetry.machine import cpu_seconds
from enginebench.validity.checks.machine import FOREIGN

SHORTEST_S = 0.3
"""CPU times are counted in hundredths of a second; below this they say little."""
AGAIN_S = 1.0


def _own() -> float:
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.Error:
            continue
        total += spent.user + spent.system
    return total


@dataclass(frozen=True)
class Moment:
    """CPU times, in seconds over all cores."""

    at: float = field(default_factory=time.monotonic)
    host: tuple[float, float] = field(default_factory=cpu_seconds)
    """Used, and passed."""
    own: float = field(default_factory=_own)
    """Of this process and its children."""


def others_since(moment: Moment) -> float:
    """Share of all cores that neither this process nor its children have used since then. Waits until the span is long enough."""
    time.sleep(max(0.0, moment.at + SHORTEST_S - time.monotonic()))
    now = Moment()
    used, passed = (after - before for before, after in zip(moment.host, now.host, strict=True))
    return max(0.0, used - (now.own - moment.own)) / passed if passed > 0 else 0.0


def check_quiet(since: Moment, wait_s: float, say: Callable[[str], None]) -> None:
    """Say that the machine is busy, if it is. wait_s: first wait so long for it to be quiet."""
    share, deadline = others_since(since), time.monotonic() + wait_s
    if share > FOREIGN and wait_s > 0:
        say(f"{_busy(share)}: waiting up to {duration(wait_s)} until it is quiet")
        while share > FOREIGN and time.monotonic() < deadline:
            start = Moment()
            time.sleep(min(AGAIN_S, max(0.0, deadline - time.monotonic())))
            share = others_since(start)
    if share > FOREIGN:
        say(f"{_busy(share)}: cells are judged by it (`foreign_load`); --wait-quiet 60s waits for a quiet machine")


def _busy(share: float) -> str:
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, " if hasattr(os, "getloadavg") else ""
    return f"this machine is busy ({load}other work uses {percent(share, 2)} of them)"
