"""What the machine did while the load ran, and what that makes of the cell's figures: devices held back or shared, processors taken away.

A cell without telemetry is not blamed for it, and neither is a GPU at the power that it was made for: that is what the device is. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.metrics.hardware import Hardware, hardware_of
from enginebench.metrics.registry import Trait, names_with
from enginebench.records.store import CellRecord
from enginebench.records.throttle import Throttle
from enginebench.records.window import Window
from enginebench.validity.checks import Check, Reason

MATTERS = 0.05
"""Share of the readings, of the periods, or of the processor time, below which it is lost in the noise."""


def hardware(record: CellRecord, window: Window) -> Iterator[Reason]:
    """Everything that held the machine back."""
    found = hardware_of(record, window)
    yield from _gpus(found)
    yield from _processors(found)


def _gpus(found: Hardware) -> Iterator[Reason]:
    counts = {why: share for why, share in found.throttled.items() if why != Throttle.POWER_CAP.words or found.capped}
    if why := [f"{reason} at {share:.0%} of the readings" for reason, share in counts.items() if share > MATTERS]:
        lowered = f"; the power limit of {_listed(found.capped)} is below its default" if found.capped else ""
        yield Reason(Check.GPU_THROTTLED, "suspect", f"a GPU lowered its clock: {', '.join(why)}{lowered}")
    if found.shared:
        detail = f"processes that are not the engine's used {_listed(found.shared)}"
        yield Reason(Check.GPU_SHARED, "suspect", detail, names_with(Trait.DEVICE))


def _processors(found: Hardware) -> Iterator[Reason]:
    for name, share in found.quota.items():
        if share > MATTERS:
            detail = f"the container of the {name} had used up its processor quota in {share:.0%} of the scheduler's periods"
            yield Reason(Check.CPU_THROTTLED, "suspect", detail)
    if found.overheated:
        yield Reason(Check.CPU_THROTTLED, "suspect", f"processors lowered their clock {found.overheated:,.0f} times because of heat")
    if found.steal is not None and found.steal > MATTERS:
        yield Reason(Check.CPU_STOLEN, "suspect", f"the hypervisor gave {found.steal:.0%} of this machine's processor time to others")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
