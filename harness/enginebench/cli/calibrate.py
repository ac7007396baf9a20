"""`bench calibrate`: how much load this machine's client can generate and still be trusted."""

import click

import enginebench
from enginebench.cli.shared import AS_JSON, print_json
from enginebench.domain import plain

_WHY = {
    "client": "beyond that, tokens wait more than {lag:g} ms (p99) until they are read",
    "machine": "beyond that, other work took the core of the client or of the fake engine: try again on an idle machine",
    "fake engine": "beyond that, the fake engine could not keep up; {estimate}",
    "range": "more was not tried; {estimate}",
}
_ESTIMATE = "at {cpu_us:.1f} us a token, four fifths of a core for each client process would bear {limit:,.0f}"


@click.command(epilog="\b\nExamples:\n  bench calibrate\n  bench calibrate --client-processes 2")
@click.option("--client-processes", type=click.IntRange(1, 64), default=1, help="Processes that share the load.")
@AS_JSON
def calibrate(client_processes: int, as_json: bool) -> None:
    """Find this machine's client limits against the fake engine and store them; later cells beyond them are marked."""
    click.echo("all streams get their tokens at the same moments, from the fake engine on this machine", err=True)
    found = enginebench.calibrate(client_processes, lambda level: click.echo(level.text, err=True))
    if as_json:
        print_json(plain(found))
        return
    estimate = _ESTIMATE.format(cpu_us=min(level.cpu_us for level in found.levels), limit=found.limits.get("events_per_s", 0.0))
    why = _WHY[found.limiter].format(lag=found.levels[-1].lag_limit_ms, estimate=estimate)
    click.echo(f"this client holds {found.streams:,} streams and {found.events_per_s:,.0f} tokens/s; {why}")
    if found.disturbed:
        lag = f"{found.idle_lag_p99_ms:.2f} ms"
        click.echo(f"warning: without any load the lag is {lag} (p99): something else uses this machine", err=True)
