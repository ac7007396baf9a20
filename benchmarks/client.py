"""Measures the accuracy and the cost of the load generator against a server with known token times. `make bench-client`.

truthserver (C, built on demand) follows a token schedule and logs when each request had been read and when each token was sent. The error
of a client is its reported time minus the logged time. Server and client have one core each. The server never sleeps, because its wake-up
latency would count as an error of the client. Each round of a case runs all clients in turn, so that other load affects all of them. Also
printed: CPU time taken by the hypervisor, and the server's use of its core (at its limit it is the bottleneck).

Clients: enginebench; enginebench without its C receiver (`loop stamps`); `bare`, a control that only reads with uvloop; and, with --rivals,
other load generators. Prints a table; asserts nothing. `--write docs/fidelity.md` replaces the table there.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cases import CASES, LOOP, Case
from instrument import build, records, serving, stolen_ticks, truth
from ours import CLIENTS
from targets import HEADER, POST_PROCESSING, verdicts

if TYPE_CHECKING:
    import rivals

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


# -- rounds ---------------------------------------------------------------------------------------------------------------


def child(name: str, case: Case, port: int, out: Path) -> None:
    """Run one client in this process and write its figures to a file."""
    figures = CLIENTS[name](case, port)
    # Not getrusage's maximum, which starts at the size of the parent process.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    out.write_bytes(pickle.dumps({**figures, "peak_bytes": int(status["VmHWM"].split()[0]) * 1024}))


def measure(program: Path, case: Case, name: str, folder: Path) -> dict[str, float]:
    """One round of one client: server on the first core, client on the last."""
    log, out = folder / "truth.bin", folder / "client.pickle"
    before = stolen_ticks()
    with serving(program, case.server, log, CORES[0]) as server:
        argv = [sys.executable, __file__, "--child", name, "--case", case.name, "--port", str(server.port), "--out", str(out)]
        cores = CORES if case.processes > 1 else CORES[-1:]
        subprocess.run(["taskset", "-c", ",".join(map(str, cores)), *argv], check=True)
    reported = pickle.loads(out.read_bytes())  # noqa: S301 -- written by our own child
    stolen_s = (stolen_ticks() - before) / os.sysconf("SC_CLK_TCK")
    known = truth(log)
    sent = {name: known[name] for name, *_ in reported["samples"]}  # without the warm-up
    shares = {"served": server.busy_s / reported["window_s"], "stolen": stolen_s / max(1e-9, reported["wall_s"])}
    return {**with_errors(reported, sent), **steady_load(sent.values(), case.streams), **shares}


def with_errors(reported: dict[str, Any], sent: Mapping[str, tuple[int, Any]]) -> dict[str, float]:
    """A client's figures with its errors in ms: of TTFT (mean, p50, p99), of the p99 gap between events, and of single time stamps
    (client's time - server's time; p50, p99)."""
    import numpy as np

    ttft, gaps, true_gaps, late = [], [], [], []
    for name, sent_ns, events in reported.pop("samples"):
        arrived, tokens = sent[name]
        ttft.append((events[0] - sent_ns) - (int(tokens[0]) - arrived))
        if len(events) == len(tokens):  # else the client does not separate events
            late.append(np.asarray(events) - tokens)
            gaps.append(np.diff(np.asarray(events)))
            true_gaps.append(np.diff(tokens))
    error = np.array(ttft) / 1e6
    figures = {"ttft_mean": error.mean(), "ttft_p50": np.percentile(error, 50), "ttft_p99": np.percentile(error, 99), "itl_p99": np.nan}
    if gaps:
        figures["late_p50"], figures["late_p99"] = np.percentile(np.concatenate(late), [50, 99]) / 1e6
        figures["itl_p99"] = (np.percentile(np.concatenate(gaps), 99) - np.percentile(np.concatenate(true_gaps), 99)) / 1e6
    return {**reported, **{key: float(value) for key, value in figures.items()}}


def steady_load(sent: Iterable[tuple[int, Any]], streams: int) -> dict[str, float]:
    """Mean requests in flight at the server (held) and events sent per second (rate), from the start of the last stream until the arrival
    of the last request."""
    responses = sorted(((arrived, tokens) for arrived, tokens in sent if len(tokens)), key=lambda response: response[0])
    first, last = responses[min(streams, len(responses)) - 1][0], responses[-1][0]
    span = max(1, last - first)
    held = sum(max(0, min(int(tokens[-1]), last) - max(arrived, first)) for arrived, tokens in responses)
    return {"held": held / span, "rate": sum(int(((tokens >= first) & (tokens < last)).sum()) for _, tokens in responses) / span * 1e9}


def measure_rival(program: Path, case: Case, rival: rivals.Rival, folder: Path) -> tuple[str, dict[str, float]]:
    """Like `measure`, for another load generator. Returns its name and figures; CPU time without that of a run with one request."""
    from rivals import compared

    log, count = folder / "truth.bin", case.streams * case.rounds
    with serving(program, case.server, None, CORES[0]) as server:
        idle_cpu_s = rival.run(server.port, 1, 1, 8, folder, CORES[-1]).cpu_s
    before, began = stolen_ticks(), time.monotonic()
    with serving(program, case.server, log, CORES[0]) as server:
        reported = rival.run(server.port, case.streams, count, case.tokens, folder, CORES[-1])
    wall_s = time.monotonic() - began
    stolen = (stolen_ticks() - before) / os.sysconf("SC_CLK_TCK") / wall_s
    sent = [value for _, value in records(log)]
    figures = {**compared(reported, sent, count), **steady_load(sorted(sent, key=lambda record: record[0])[-count:], case.streams)}
    figures |= {"cpu_s": figures["cpu_s"] - idle_cpu_s, "wall_s": wall_s, "peak_bytes": float("nan"), "stolen": stolen}
    return reported.title, figures


# -- the table -----------------------------------------------------------------------------------------------------------

OURS = ("enginebench", LOOP)
COLUMNS = (
    "case", "client", "TTFT error mean / p50 / p99, ms", "ITL p99 error, ms", "stamp error p50 / p99, ms",
    "streams held", "events/s", "CPU s per M events",
    "peak MB", "server busy", "stolen",
)  # fmt: skip


def typical(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians of all figures over the rounds, and derived ones: events/s in the window (recorded) and until all events were decoded, and
    CPU time per event in us."""
    mid = {key: statistics.median(r[key] for r in rounds) for key in rounds[0] if all(key in r for r in rounds)}
    rates = {"recorded": mid["events"] / mid["window_s"], "decoded": mid["events"] / mid["wall_s"]}
    return {**mid, **rates, "cpu_us": mid["cpu_s"] / mid["events"] * 1e6}


def row(case: Case, name: str, mid: Mapping[str, float]) -> tuple[str, ...]:
    """A client's row in the table. mid: `typical` figures."""
    paced = "--burst" not in case.server
    errors = f"{mid['ttft_mean']:.2f} / {mid['ttft_p50']:.2f} / {mid['ttft_p99']:.2f}" if paced else "-"
    itl = f"{mid['itl_p99']:.2f}" if paced and mid["itl_p99"] == mid["itl_p99"] else "-"
    late = f"{mid['late_p50']:.2f} / {mid['late_p99']:.2f}" if paced and "late_p50" in mid else "-"
    rate = f"{(mid['rate'] if paced else mid['decoded']) / 1e3:,.0f}k"
    if not paced and name in OURS:
        rate += f" ({mid['recorded'] / 1e3:,.0f}k while recording)"
    busy = f"{mid['served']:.0%}" if "served" in mid and case.processes == 1 else "-"
    peak = f"{mid['peak_bytes'] / 1e6:.0f}" if case.processes == 1 and mid["peak_bytes"] == mid["peak_bytes"] else "-"
    return (
        case.name, name, errors, itl, late, f"{mid['held']:,.0f}" if paced else "-", rate,
        f"{mid['cpu_us']:.1f}", peak, busy, f"{mid['stolen']:.0%}",
    )  # fmt: skip


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


MARKS = "<!-- measured: begin -->", "<!-- measured: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds per case; the table shows medians")
    parser.add_argument("--only", default="", help="run only cases with this text in the name")
    parser.add_argument("--rivals", action="store_true", help="also run other load generators that are installed (benchmarks/rivals.py)")
    parser.add_argument("--write", type=Path, help="replace the table in this file")
    for hidden in ("--child", "--case", "--port", "--out"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        case = next(case for case in CASES if case.name == options.case)
        child(options.child, case, int(options.port), Path(options.out))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build(folder)
        from enginebench.loadgen.transport.library import library
        from rival_tools import RIVALS  # imported late, because a client's memory is measured

        if library() is None:
            print(f"the C receiver is not built, so only {LOOP!r} is measured; `bench doctor` shows why", file=sys.stderr)
        installed = [rival for rival in RIVALS if rival.find()] if options.rivals else []
        rows: list[tuple[str, ...]] = []
        ours: dict[str, Mapping[str, float]] = {}
        for case in (case for case in CASES if options.only in case.name):
            clients = [client for client in case.clients if client != "enginebench" or library() is not None]
            rounds: dict[str, list[dict[str, float]]] = {client: [] for client in clients}
            for _ in range(options.rounds):
                for client in clients:
                    rounds[client].append(measure(program, case, client, folder))
            figures = {client: typical(each) for client, each in rounds.items()}
            rows += [row(case, client, mid) for client, mid in figures.items()]
            if "enginebench" in figures:
                ours[case.name] = figures["enginebench"]
            rows += [rival_row for rival in installed if case.rivals and (rival_row := _rival_row(program, case, rival, folder))]
            print(*("  ".join(line) for line in rows if line[0] == case.name), sep="\n", file=sys.stderr, flush=True)
        seconds = {} if options.only else other_costs(program, folder)
        target_rows = list(verdicts(ours, seconds))
    table = "\n\n".join((markdown(COLUMNS, rows), markdown(HEADER, target_rows)))
    about = f"Measured with `make bench-client` on {len(CORES)} cores ({cpu_name()}), {options.rounds} rounds per case, medians."
    text = f"{about}\n\n{table}"
    print(text)
    if options.write:
        before, _, rest = options.write.read_text().partition(MARKS[0])
        options.write.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


def _rival_row(program: Path, case: Case, rival: rivals.Rival, folder: Path) -> tuple[str, ...] | None:
    """The row of another load generator; None, with a message on stderr, if it fails."""
    from rivals import RivalError

    try:
        title, figures = measure_rival(program, case, rival, folder)
    except (RivalError, ValueError) as error:
        print(f"{rival.package}: {error}", file=sys.stderr)
        return None
    lost = f", {figures['lost']:.0f} requests lost" if figures["lost"] else ""
    return row(case, f"{title}{lost}", typical([figures]))


def other_costs(program: Path, folder: Path) -> dict[str, float]:
    """Seconds of start-up, and of the computation of figures from events on one core."""
    import postprocessing  # imported late, because a client's memory is measured
    import startup

    return {**startup.seconds(program, folder, CORES[0], times=5), POST_PROCESSING: postprocessing.seconds()}


def cpu_name() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return "unknown CPU"


if __name__ == "__main__":
    main()
