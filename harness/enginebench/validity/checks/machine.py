"""Was the machine held back, or shared with other work, while the load ran? A GPU at the power limit it was built for is not held back."""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.domain.formatting import percent
from enginebench.metrics.registry import Trait
from enginebench.records.throttle import Throttle
from enginebench.validity.check import Finding, Threshold, check
from enginebench.validity.context import Context, Requirement

READINGS = Threshold(0.05, "share")
PERIODS = Threshold(0.05, "share")
STOLEN = Threshold(0.05, "share")

GPUS = Requirement("telemetry of the GPUs that the cell ran on", lambda cell: bool(cell.hardware.devices))
PROCESSORS = Requirement(
    "telemetry of container quotas or processor heat", lambda cell: bool(cell.hardware.quota) or cell.hardware.overheated is not None
)
STEAL = Requirement("telemetry of stolen processor time", lambda cell: cell.hardware.steal is not None)


@check(
    meaning="the GPU's cooling or power limit lowers the figures",
    when={
        "suspect": "at over {READINGS} of its readings a GPU's clock was lowered for heat, a power brake or a hardware slowdown, or for "
        "its power limit where that is below the device's default"
    },
    advice="cool the GPU or raise its limit, as `nvidia-smi -q -d PERFORMANCE,POWER` shows them, and measure again",
    needs=(GPUS,),
)
def gpu_throttled(cell: Context) -> Iterator[Finding]:
    """A GPU at its default power limit is not reported: that is what was bought."""
    found = cell.hardware
    counts = {why: share for why, share in found.throttled.items() if why != Throttle.POWER_CAP.words or found.capped}
    if why := [f"{reason} at {percent(share)} of the readings" for reason, share in counts.items() if share > READINGS]:
        lowered = f"; the power limit of {', '.join(found.capped)} is below its default" if found.capped else ""
        yield Finding("suspect", f"a GPU lowered its clock: {', '.join(why)}{lowered}")


@check(
    meaning="part of the GPU's time and energy went into other work",
    when={
        "suspect": "at any reading a process that is not the engine's computed on a GPU of the cell (power, energy and memory are withheld)"
    },
    advice="end the processes that `nvidia-smi` lists beside the engine, and measure again",
    needs=(GPUS,),
    withholds=(Trait.DEVICE,),
)
def gpu_shared(cell: Context) -> Iterator[Finding]:
    """Processes that telemetry cannot look up count as strangers only where it found the engine's own."""
    if cell.hardware.shared:
        yield Finding("suspect", f"processes that are not the engine's used {', '.join(cell.hardware.shared)}", withholds=True)


@check(
    meaning="engine or client got less processor time than they could use",
    when={"suspect": "a container had used up its quota in over {PERIODS} of the scheduler's periods, or heat lowered a processor's clock"},
    advice="raise `cpus` under `container`, or cool the machine, and measure again",
    needs=(PROCESSORS,),
)
def cpu_throttled(cell: Context) -> Iterator[Finding]:
    """Engines also need processors: to schedule, to tokenize and to start kernels."""
    for name, share in cell.hardware.quota.items():
        if share > PERIODS:
            yield Finding(
                "suspect", f"the container of the {name} had used up its processor quota in {percent(share)} of the scheduler's periods"
            )
    if cell.hardware.overheated:
        yield Finding("suspect", f"processors lowered their clock {cell.hardware.overheated:,.0f} times because of heat")


@check(
    meaning="engine and client were paused at random",
    when={"suspect": "over {STOLEN} of the machine's processor time went to other virtual machines"},
    advice="use a dedicated machine, or measure again when the host is quiet",
    needs=(STEAL,),
)
def cpu_stolen(cell: Context) -> Iterator[Finding]:
    """Steal time, as the guest's kernel counts it over all cores."""
    if cell.hardware.steal is not None and cell.hardware.steal > STOLEN:
        yield Finding("suspect", f"the hypervisor gave {percent(cell.hardware.steal)} of this machine's processor time to others")
