"""Is a load that several client hosts share the load of one? 1 x N streams against k x N/k, in turn, on a server that knows the truth.

truthserver logs when it had read each request and when it sent each token. Each round runs all arms one after another: this process alone,
then 2 and 4 `bench client`s on this machine, each with a clock of its own (a time namespace of Linux, as root), so that a wrong offset
would show at once. Printed for each arm: requests lost or doubled (by id, in the samples and at the server), the load that the server saw,
latencies, and the error of single time stamps against the truth, to which an error of a clock's offset adds. Changes from the first arm
have the interval of `bench compare`. Ends with a message if an id is missing, or a token came before it was sent.

    python benchmarks/client_hosts.py --rounds 8
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from client import steady_load
from enginebench.dialects import OpenAICompletions
from enginebench.loadgen import LoadResult, LoadSpec, Target, WireRequest, run_load
from enginebench.loadgen.remote.host import ClientHost
from enginebench.metrics.statistics import change, estimate
from enginebench.runner.clients.hosts import about_this_machine
from instrument import build, serving, truth
from ours import bodies

OTHER_CLOCK = Path(__file__).resolve().parents[1] / "tests" / "engine" / "other_clock.py"
CLOCKS_NS = (3_000_000_000, -250_000_000, 86_400_000_000_000, -1_234_567_890)
ARMS = (1, 2, 4)
SERVER = ("--ttft-ms", "50", "--itl-ms", "10")
FIGURES = {
    "rate": "events/s", "held": "streams held", "ttft": "TTFT p50, ms", "itl": "ITL p50, ms", "itl99": "ITL p99, ms",
    "late50": "stamp error p50, ms", "late99": "stamp error p99, ms",
}  # fmt: skip


@contextmanager
def clients(clocks_ns: Sequence[int]) -> Iterator[list[ClientHost]]:
    """Connected clients whose clocks are ahead of this machine's by so much."""
    env = {**os.environ, "ENGINEBENCH_CLIENT_TOKEN": "benchmark"}
    running = [
        subprocess.Popen(
            [sys.executable, str(OTHER_CLOCK), str(clock), sys.executable, "-m", "enginebench", "client"], env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for clock in clocks_ns
    ]  # fmt: skip
    try:
        lines = [each.stdout.readline() if each.stdout else "" for each in running]
        if not all(lines):
            sys.exit("no time namespaces here: run it as root, on Linux")
        ports = [int(line.rpartition(":")[2]) for line in lines]
        yield [ClientHost("127.0.0.1", port, "benchmark", about_this_machine()) for port in ports]
    finally:
        for each in running:
            each.terminate()
            each.communicate()


def measure(program: Path, hosts: Sequence[ClientHost], streams: int, rounds: int, tokens: int, log: Path) -> dict[str, float]:
    """One load, and its figures against the server's log. hosts: none: this process sends it."""
    for host in hosts:
        host.connect()
    with serving(program, SERVER, log, None) as server:
        dialect, count = OpenAICompletions(), streams * rounds
        requests = [WireRequest(i, dialect.path, body, 64, tokens) for i, body in enumerate(bodies(tokens, count))]
        result = run_load(LoadSpec(Target("127.0.0.1", server.port), requests, streams, dialect, 60.0), hosts=hosts)
    known = truth(log)
    return {**_against(result, known, count), **steady_load(known.values(), streams), **_shares(result)}


def _require(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"does not hold: {what}")


def _against(result: LoadResult, sent: Mapping[str, tuple[int, np.ndarray]], count: int) -> dict[str, float]:
    seen = Counter(sample.index for sample in result.samples)
    names = {f"-{sample.index:012x}": sample for sample in result.samples}
    _require(set(names) == set(sent), "the ids that the server saw")
    late, gaps, ttft = [], [], []
    slack_ns = max((share.clock.error_ns for share in result.shares), default=0)
    for name, sample in names.items():
        arrived, tokens = sent[name]
        events = np.asarray(sample.event_ns)
        _require(len(events) == len(tokens), f"{len(events)} of {len(tokens)} events of request {sample.index}")
        _require(sample.sent_ns <= arrived + slack_ns, "sent before it arrived, as far as the clocks are known")
        _require(bool((events >= tokens - slack_ns).all()), "no token came before it was sent, as far as the clocks are known")
        late.append(events - tokens)
        gaps.append(np.diff(events))
        ttft.append(sample.event_ns[0] - sample.sent_ns)
    off = np.concatenate(late) / 1e6
    between = np.concatenate(gaps) / 1e6
    return {
        "lost": count - len(seen), "doubled": sum(seen.values()) - len(seen), "ttft": float(np.median(ttft)) / 1e6,
        "itl": float(np.median(between)), "itl99": float(np.percentile(between, 99)), "late50": float(np.median(off)),
        "late99": float(np.percentile(off, 99)),
    }  # fmt: skip


def _shares(result: LoadResult) -> dict[str, float]:
    """The largest stated error of an offset, and the largest true one: the clocks are known."""
    truths = dict(zip([share.name for share in result.shares], CLOCKS_NS, strict=False))
    readings = [(reading, truths[share.name]) for share in result.shares for reading in (share.clock.before, share.clock.after)]
    return {
        "stated": max((reading.error_ns for reading, _ in readings), default=0) / 1e6,
        "true": max((abs(reading.offset_ns - truth_ns) for reading, truth_ns in readings), default=0) / 1e6,
    }


def table(found: Mapping[int, Sequence[Mapping[str, float]]], streams: int) -> Iterator[str]:
    yield "| arm | " + " | ".join(FIGURES.values()) + " | lost / doubled | clock error stated / true, ms |"
    yield "|---" * (len(FIGURES) + 3) + "|"
    for arm, rounds in found.items():
        means = [float(np.mean([each[name] for each in rounds])) for name in FIGURES]
        lost, doubled = (int(sum(each[name] for each in rounds)) for name in ("lost", "doubled"))
        clock = f"{max(each['stated'] for each in rounds):.3f} / {max(each['true'] for each in rounds):.3f}" if arm > 1 else "-"
        yield f"| {arm} x {streams // arm} | " + " | ".join(f"{value:,.3f}" for value in means) + f" | {lost} / {doubled} | {clock} |"
    yield ""
    for arm in list(found)[1:]:
        for name, words in FIGURES.items():
            a, b = (estimate([each[name] for each in rounds]) for rounds in (found[arm], found[1]))
            if a is not None and b is not None:
                its = change(a, b)
                between = f"{its.low:+.2%} to {its.high:+.2%}" if its.low is not None and its.high is not None else "no interval"
                yield f"{arm} hosts against 1 client, {words}: {between} ({its.coverage:.0%}), p {its.p:.3g}: {its.order}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--requests", type=int, default=4, help="per stream")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    found: dict[int, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as name, clients(CLOCKS_NS) as hosts:
        program = build(Path(name))
        for number in range(given.rounds):
            for arm in ARMS if number % 2 else reversed(ARMS):
                used = hosts[:arm] if arm > 1 else []
                found[arm].append(measure(program, used, given.streams, given.requests, given.tokens, Path(name) / "log"))
        print("\n".join(table(found, given.streams)))


if __name__ == "__main__":
    main()
