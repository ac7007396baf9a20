"""Was the machine held back, or shared with other work, while the load ran? A GPU at the power limit it was built for is not held back."""

from collections.abc import Iterator

from enginebench.domain.formatting import percent
from enginebench.metrics.hardware import engine_is_traced
from enginebench.metrics.registry import Trait
from enginebench.records.throttle import Throttle
from enginebench.validity.check import Finding, Severity, Threshold, check
from enginebench.validity.context import Context, Requirement

READINGS = Threshold(0.05, "share")
PERIODS = Threshold(0.05, "share")
STOLEN = Threshold(0.05, "share")
FOREIGN, MOST_FOREIGN = Threshold(0.1, "share"), Threshold(0.3, "share")
WAITED = Threshold(0.5)
"""CPUs: one thread of the engine that waits half of its time."""
READS = Threshold(20, "MB/s")
STEP = Threshold(0.1, "s")

GPUS = Requirement("telemetry of the GPUs that the cell ran on", lambda cell: bool(cell.hardware.devices))
PROCESSORS = Requirement(
    "telemetry of container quotas or CPU heat", lambda cell: bool(cell.hardware.quota) or cell.hardware.overheated is not None
)
STEAL = Requirement("telemetry of stolen CPU time", lambda cell: cell.hardware.steal is not None)
TRACED = Requirement("CPU time of the engine, whose processes are unknown", lambda cell: engine_is_traced(cell.record))
BUSY = Requirement("telemetry of the machine's CPU time", lambda cell: cell.hardware.foreign is not None)
WAITING = Requirement(
    "telemetry of disk reads or of time that disks were waited for",
    lambda cell: cell.hardware.iowait is not None or cell.hardware.disk_reads is not None,
)
CLOCK = Requirement("readings of the wall clock", lambda cell: cell.hardware.clock_step_s is not None)


@check(
    meaning="the machine was not the engine's alone, so the figures are too low",
    when={"invalid": "over {MOST_FOREIGN} of the machine's CPU time went to neither the engine nor bench", "suspect": "over {FOREIGN} did"},
    advice="end the other work that `top` shows, or wait for a quiet machine with `--wait-quiet 60s`",
    needs=(TRACED, BUSY),
)
def foreign_load(cell: Context) -> Iterator[Finding]:
    """(host busy - engine - bench) / capacity of all cores, in the window. The engine's part includes its containers and, where it is
    attached on this machine, the process that listens on its port.
    """
    share, busy = cell.hardware.foreign or 0.0, cell.hardware.busy or 0.0
    if share > FOREIGN:
        severity: Severity = "invalid" if share > MOST_FOREIGN else "suspect"
        limit = MOST_FOREIGN if share > MOST_FOREIGN else FOREIGN
        detail = f"other work used {percent(share, 2)} of the CPUs (limit {limit}; {percent(busy, 2)} were busy in all)"
        yield Finding(severity, detail, excess=share / FOREIGN)


@check(
    meaning="two measurements on one machine slow each other",
    when={"suspect": "another run, or another process on the GPU, was at work and `--share-machine` let this one go on"},
    advice="measure one after the other, without `--share-machine`",
)
def shared_machine(cell: Context) -> Iterator[Finding]:
    """Each run holds a lease on its machine; without `--share-machine` a second one is refused."""
    if cell.record.shared_machine is not None:
        yield Finding("suspect", cell.record.shared_machine)


@check(
    meaning="the GPU's cooling or power limit lowers the figures",
    when={
        "suspect": "at over {READINGS} of its readings a GPU's clock was lowered for heat, a power brake or a hardware slowdown, or for "
        "its power limit where that is below the device's default"
    },
    advice="cool the GPU or raise its limit, as `nvidia-smi -q -d PERFORMANCE,POWER` shows them",
    needs=(GPUS,),
)
def gpu_throttled(cell: Context) -> Iterator[Finding]:
    """A GPU at its default power limit is not reported."""
    found = cell.hardware
    counts = {why: share for why, share in found.throttled.items() if why != Throttle.POWER_CAP.words or found.capped}
    if why := [f"{reason} at {percent(share)} of the readings" for reason, share in counts.items() if share > READINGS]:
        lowered = f"; the power limit of {', '.join(found.capped)} is below its default" if found.capped else ""
        yield Finding("suspect", f"a GPU lowered its clock: {', '.join(why)} (limit {READINGS}){lowered}", excess=max(counts.values()))


@check(
    meaning="part of the GPU's time and energy went into other work",
    when={
        "suspect": "at any reading a process that is not the engine's computed on a GPU of the cell (power, energy and memory are withheld)"
    },
    advice="end the processes that `nvidia-smi` lists in addition to the engine",
    needs=(GPUS,),
    withholds=(Trait.DEVICE,),
)
def gpu_shared(cell: Context) -> Iterator[Finding]:
    """Processes that telemetry cannot look up count as strangers only where it found the engine's own."""
    if cell.hardware.shared:
        yield Finding("suspect", f"processes that are not the engine's used {', '.join(cell.hardware.shared)}", withholds=True)


@check(
    meaning="engine or client got less CPU time than they could use",
    when={"suspect": "a container had used up its quota in over {PERIODS} of the scheduler's periods, or heat lowered a CPU's clock"},
    advice="raise `cpus` under `container`, or cool the machine",
    needs=(PROCESSORS,),
)
def cpu_throttled(cell: Context) -> Iterator[Finding]:
    """Engines also need CPUs: to schedule, to tokenize and to start kernels."""
    for name, share in cell.hardware.quota.items():
        if share > PERIODS:
            detail = f"the container of the {name} had used up its quota in {percent(share)} of the periods (limit {PERIODS})"
            yield Finding("suspect", detail, excess=share / PERIODS)
    if cell.hardware.overheated:
        detail = f"CPUs lowered their clock {cell.hardware.overheated:,.0f} times because of heat"
        yield Finding("suspect", detail, excess=cell.hardware.overheated)


@check(
    meaning="engine and client were paused at random",
    when={"suspect": "over {STOLEN} of the machine's CPU time went to other virtual machines"},
    advice="use a dedicated machine, or measure again when the host is quiet",
    needs=(STEAL,),
)
def cpu_stolen(cell: Context) -> Iterator[Finding]:
    """Steal time, as the guest's kernel counts it over all cores."""
    if (share := cell.hardware.steal or 0.0) > STOLEN:
        detail = f"the hypervisor gave {percent(share)} of this machine's CPU time to others (limit {STOLEN})"
        yield Finding("suspect", detail, excess=share / STOLEN)


@check(
    meaning="a disk held the engine up",
    when={"suspect": "the engine read over {READS} from disks, or over {WAITED} CPUs were idle on average as a process waited for one"},
    advice="put the weights on a faster disk or keep them in memory, and see `iostat -x 1` for what else uses the disk",
    needs=(WAITING,),
)
def disk_wait(cell: Context) -> Iterator[Finding]:
    """Weights and KV cache belong in memory once an engine is warm: mapped weights that do not fit are read again and again. Waiting is
    seen only where a CPU has nothing else to do, reading always.
    """
    if (read := (cell.hardware.disk_reads or 0.0) / 1e6) > READS:
        yield Finding("suspect", f"the engine read {read:,.3g} MB/s from disks (limit {READS})", excess=read / READS)
    elif (waited := cell.hardware.iowait or 0.0) > WAITED:
        yield Finding("suspect", f"{waited:.2g} CPUs waited for a disk (limit {WAITED})", excess=waited / WAITED)


@check(
    meaning="times that the engine reports, and log lines, do not fit those of the client",
    when={"suspect": "the wall clock moved by over {STEP} against the monotonic clock while the load ran"},
    advice="let the clock be slewed and not stepped, and keep the machine from sleeping",
    needs=(CLOCK,),
)
def clock_step(cell: Context) -> Iterator[Finding]:
    """The system clock was set, or the machine slept. The client's own times are monotonic, and not affected by a clock that is set."""
    if (step_s := cell.hardware.clock_step_s or 0.0) > STEP:
        yield Finding("suspect", f"the wall clock moved by {step_s:,.3g} s during the load (limit {STEP})", excess=step_s / STEP)
