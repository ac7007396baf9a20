"""Where the load came from several hosts: did they share one clock, and had each its machine for itself?"""

from collections.abc import Iterator

from enginebench.domain.formatting import percent
from enginebench.metrics.hardware import client_hardware
from enginebench.validity.check import Finding, Threshold, check
from enginebench.validity.checks.machine import FOREIGN, STOLEN
from enginebench.validity.context import EVENTS, Context

OF_ITL = Threshold(0.1, "share")
DRIFT = Threshold(0.5, "ms")
"""In a second: a kernel slews a clock by no more, and a crystal is off by a tenth of it."""


@check(
    meaning="throughput and requests in flight over all client hosts are uncertain",
    when={
        "suspect": "the error of the offset between the clock of a client host and that of this machine is over {OF_ITL} of the ITL (TPOT "
        "at its lower quartile), or the offset changed by over {DRIFT} per second"
    },
    advice="use client hosts that are nearer on the network, or one host with more `--client-processes`",
    needs=(EVENTS,),
)
def client_clock_offset(cell: Context) -> Iterator[Finding]:
    """The latencies of a request are of one clock, and not affected. What is counted over all hosts is: the window, throughput, requests
    in flight, and whether all started together. The error is what 64 round trips before the load, and as many after it, leave open whatever
    the delays of the two ways are: a network that is slow in one direction cannot hide. An offset is taken to grow evenly over the load.
    """
    limit_ms = OF_ITL * cell.quick_tpot_ms
    for host in cell.record.client.hosts:
        if host.error_ms > limit_ms:
            detail = f"the clock of client {host.name} is known to {host.error_ms:.2g} ms (limit {limit_ms:.2g} ms, {OF_ITL} of the ITL)"
            yield Finding("suspect", detail, excess=host.error_ms / limit_ms)
        certain_ms = max(0.0, abs(host.drift_ms) - 2 * host.error_ms)
        if certain_ms > DRIFT * host.span_s:
            detail = f"the clock of client {host.name} moved by {host.drift_ms:+.3g} ms in {host.span_s:.3g} s (limit {DRIFT} per second)"
            yield Finding("suspect", detail, excess=certain_ms / (DRIFT * host.span_s))


@check(
    meaning="a client may have been late for reasons that are not those of the engine",
    when={
        "suspect": "over {FOREIGN} of a client host's CPU time went to other work than the client, over {STOLEN} went to other virtual "
        "machines, a CPU lowered its clock because of heat, or another run measured there"
    },
    advice="end the other work on that host, or use another one",
)
def client_host_busy(cell: Context) -> Iterator[Finding]:
    """The same limits as for the engine's machine. How late a client itself was is judged by `client_bound`, of the worst host."""
    for host in cell.record.client.hosts:
        its = client_hardware(host.telemetry, cell.window)
        for share, limit, words in ((its.foreign, FOREIGN, "other work used"), (its.steal, STOLEN, "other virtual machines took")):
            if share is not None and share > limit:
                detail = f"{words} {percent(share, 2)} of the CPUs of client {host.name} (limit {limit})"
                yield Finding("suspect", detail, excess=share / limit)
        if its.overheated:
            yield Finding("suspect", f"CPUs of client {host.name} lowered their clock {its.overheated:,.0f} times because of heat")
        if host.shared_machine:
            yield Finding("suspect", f"on client {host.name}: {host.shared_machine}")
