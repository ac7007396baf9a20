"""`bench calibrate`: how much load this machine's client can generate and still be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from enginebench.cli.shared import AS_JSON, print_json

if TYPE_CHECKING:
    from enginebench.runner.calibration import Level

_WHY = {
    "client": "beyond that, tokens wait more than {lag:g} ms (p99) until they are read",
    "machine": "beyond that, something else took the client's core, or the fake engine's: try again when nothing else uses this machine",
    "fake engine": "beyond that, the fake engine could not keep up; {reckoned}",
    "range": "more was not tried; {reckoned}",
}
_RECKONED = "at {cpu_us:.1f} us a token, four fifths of a core for each client process would bear {limit:,.0f}"


@click.command(epilog="\b\nExamples:\n  bench calibrate\n  bench calibrate --client-processes 2")
@click.option("--client-processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that share the load.")
@AS_JSON
def calibrate(client_processes: int, as_json: bool) -> None:
    """Find this machine's client limits against the fake engine and keep them; later cells beyond them are marked."""
    from enginebench.domain import plain
    from enginebench.runner.calibration import LAG_MS, TICK_MS
    from enginebench.runner.calibration import calibrate as find

    def say(level: Level) -> None:
        click.echo(
            f"{level.streams:>5} streams  {level.events_per_s:>9,.0f} tokens/s  lag p99 {level.lag_p99_ms:6.2f} ms  "
            f"{level.cpu_fraction:4.0%} of a core{f'  limit: {level.limiter}' if level.limiter else ''}",
            err=True,
        )

    click.echo(f"all streams get a token every {TICK_MS:g} ms, from the fake engine on this machine", err=True)
    found = find(client_processes, say)
    if as_json:
        print_json(plain(found))
        return
    limits = f"{found.streams:,} streams and {found.events_per_s:,.0f} tokens/s"
    reckoned = _RECKONED.format(cpu_us=min(level.cpu_us for level in found.levels), limit=found.limits.get("events_per_s", 0.0))
    why = _WHY[found.limiter].format(lag=LAG_MS[found.levels[-1].stamps], reckoned=reckoned)
    click.echo(f"this client holds {limits}; {why}")
    if found.idle_lag_p99_ms > LAG_MS["loop"] / 2:
        click.echo(
            f"warning: with nothing to do at all the lag is {found.idle_lag_p99_ms:.2f} ms (p99): something else uses this machine",
            err=True,
        )
