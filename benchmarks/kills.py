"""Kills the processes of a run at random moments, resumes it, and counts what was lost, changed or left behind. `make bench-faults`.

    python benchmarks/kills.py [--kills 300] [--seed 1] [--folder FOLDER]

A series starts `bench run` on the fake engine and sends SIGKILL to one kind of process after another (or to the harness and a guardian at
once), each at a random moment. Whenever the run has ended, the same command resumes it, at last until every cell is measured. With a Docker
daemon every third series runs the engine in a container.

lost cells: finished before a kill and gone afterwards, or not measured in the end.
changed bytes: bytes of records and samples that were finished before a kill and differ in the end.
leftovers: processes, temporary folders, unfinished files, leases, containers and networks that are there in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from enginebench.runtime import LaunchFailed
from enginebench.runtime.container.client import connect
from enginebench.runtime.container.leftovers import Leftover, find

IMAGE = "enginebench-faults/nothing:1.0.0"
KINDS = {
    "harness": (),
    "guardian": ("runtime/guardian.py",),
    "engine": ("fake_worker.py",),
    "client": ("enginebench.loadgen.workers",),
    "sampler": ("enginebench.telemetry.sampler",),
    "scraper": ("enginebench.telemetry.scraper",),
    "harness and guardian": ("runtime/guardian.py",),
    "container": (),
    "container guardian": ("container/guardian.py",),
    "harness and container guardian": ("container/guardian.py",),
}
"""Kind of process -> what its command line contains; of two kinds, that of the second."""
BOXED = ("container", "container guardian", "harness and container guardian", "harness", "client", "sampler")
PLAIN = tuple(kind for kind in KINDS if "container" not in kind)
SCENARIO = """
name: faults
deployments:
  - {{engine: fake, model: any, precision: none, options: {{ttft_ms: 10, tick_ms: 4}}{more}}}
loads:
  - {{concurrency: [1, 2, 3, 4], input_tokens: 16, output_tokens: 16, requests: 16, timeout_s: 5}}
repeats: 3
"""


CELLS = 12
KILLS = 10
"""Of one series."""


@dataclass
class Series:
    """One run that is killed several times."""

    folder: Path
    client: Any
    """Of the Docker daemon; None: the engine runs as a process."""
    problems: list[str] = field(default_factory=list)
    lost: int = 0
    changed: int = 0
    kills: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for name in ("tmp", "leases"):
            (self.folder / name).mkdir(parents=True)
        box = {"image": IMAGE, "mounts": mounts(), "shm": "64MiB", "ulimits": {"nofile": 4096, "nproc": 4096}}
        more = f", runtime: docker, container: {json.dumps(box)}" if self.client else ""
        (self.folder / "s.yaml").write_text(SCENARIO.format(more=more))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        env = os.environ | {
            "ENGINEBENCH_HOME": str(self.folder / "home"), "ENGINEBENCH_LEASES": str(self.folder / "leases"),
            "TMPDIR": str(self.folder / "tmp"),
        }  # fmt: skip
        run = ("run", "s.yaml", "--no-html", "--client-processes", "2")
        command = [sys.executable, "-m", "enginebench", *(arguments or (*run, "--retry-failed"))]
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=output, stderr=output)

    def run(self, kinds: Sequence[str], moments: Sequence[float]) -> None:
        """Kill, resume, count."""
        process, done = self.start(), dict[str, bytes]()
        for kind, after_s in zip(kinds, moments, strict=True):
            if process.poll() is not None:
                if len(self._finished()) == 2 * CELLS:
                    break
                process = self.start()
            self.kills[kind] += self._kill(process, kind, after_s)
            if kind.startswith("harness"):
                process.wait()
            done = {**self._finished(), **done}  # what was there first is what must be there in the end
        process.wait(900)
        for _ in range(4):
            if len(self._finished()) == 2 * CELLS:
                break
            process = self.start()
            process.wait(900)
        if process.returncode < 0:  # it was killed after its last cell, so there has been no start since then
            self.start("clean").wait(900)
        now = self._finished()
        self.lost = sum(file not in now for file in done) + CELLS - len(now) // 2
        self.changed = sum(_differences(content, now[file]) for file, content in done.items() if file in now)
        self.problems += self._leftovers()

    def _kill(self, process: subprocess.Popen[bytes], kind: str, after_s: float) -> bool:
        """Whether there was a process of that kind to be killed."""
        until = time.monotonic() + after_s
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.005)
        targets: list[int] = []
        while process.poll() is None and not (targets := self._targets(process.pid, kind)):
            time.sleep(0.005)
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(targets)

    def _targets(self, harness: int, kind: str) -> list[int]:
        """The processes to kill now; none while there is none of the kind."""
        if kind == "harness":
            return [harness]
        if kind == "container":
            with contextlib.suppress(LaunchFailed, psutil.Error):
                ours = [item for item in self._in_daemon() if item.kind == "container" and item.state == "running"]
                return [self.client.api.inspect_container(item.id)["State"]["Pid"] for item in ours]
            return []
        found = [pid for pid, command in _children(harness) if any(sign in command for sign in KINDS[kind])]
        return [*found, harness] if found and kind.startswith("harness and") else found[:1]

    def _in_daemon(self) -> list[Leftover]:
        """Containers and networks of this series."""
        return [item for item in find(self.client) if item.leases == str(self.folder / "leases")]

    def _finished(self) -> dict[str, bytes]:
        """Record and samples of every measured cell: path -> content."""
        found: dict[str, bytes] = {}
        for record in self.folder.glob("results/*/cells/*.json"):
            with contextlib.suppress(OSError, ValueError):
                content = record.read_bytes()
                if json.loads(content)["status"] == "ok":
                    samples = record.parents[1] / "samples" / f"{record.stem}.parquet"
                    found |= {str(record): content, str(samples): samples.read_bytes()}
        return found

    def _leftovers(self) -> list[str]:
        deadline = time.monotonic() + 5  # guardians end a moment after the harness
        while (found := list(self._left())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _left(self) -> Iterator[str]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("ENGINEBENCH_HOME") == str(self.folder / "home"):
                    yield f"process {' '.join(process.cmdline())[:120]}"
        for name in ("tmp", "leases"):
            yield from (f"file {path}" for path in (self.folder / name).glob("*"))
        yield from (f"file {path}" for path in self.folder.rglob("*") if path.name.endswith((".part", ".new")) or ".draft-" in path.name)
        if self.client is not None:
            yield from (item.text for item in self._in_daemon())


def _children(pid: int) -> Iterator[tuple[int, str]]:
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                yield child.pid, " ".join(child.cmdline())


def _differences(before: bytes, after: bytes) -> int:
    return abs(len(before) - len(after)) + sum(a != b for a, b in zip(before, after, strict=False))


def mounts() -> list[str]:
    """This machine's Python, which the empty image runs."""
    wanted = dict.fromkeys([sys.base_prefix, "/usr/lib", "/usr/bin", "/bin", "/lib", "/lib64"])
    return [f"{path}:{path}" for path in wanted if Path(path).exists()]


def daemon() -> Any:
    """A client of the Docker daemon with the empty image; None without a daemon."""
    try:
        client = connect(5)
    except LaunchFailed as failure:
        print(f"no containers: {failure.reason}")
        return None
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    client.api.import_image_from_data(empty.getvalue(), IMAGE, changes=[f"ENV PATH={sys.base_prefix}/bin:/usr/bin:/bin"])
    return client


def undisturbed_s(folder: Path, client: Any) -> float:
    """How long the run takes."""
    trial, began = Series(folder, client), time.monotonic()
    if code := trial.start().wait(900):
        sys.exit(f"a run that nobody kills ended with exit code {code}:\n{(folder / 'output').read_text()}")
    took = time.monotonic() - began
    shutil.rmtree(folder)
    return took


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the series; the exit code is 1 if anything was lost, changed or left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the runs are; default: a temporary folder, removed if nothing was found")
    asked = parser.parse_args(arguments)
    chance, client = random.Random(asked.seed), daemon()  # noqa: S311  # moments, not keys
    base = asked.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    took = {None: undisturbed_s(base / "plain", None)} | ({client: undisturbed_s(base / "boxed", client)} if client else {})
    lost = changed = left = 0
    kills: Counter[str] = Counter()
    for number in itertools.count():
        boxed = client if client is not None and number % 3 == 2 else None
        series = Series(base / f"{number:03}", boxed)
        count = min(KILLS, asked.kills - kills.total())
        kinds = chance.choices(BOXED if boxed else PLAIN, k=count)
        series.run(kinds, [chance.uniform(0, took[boxed] / 3) for _ in kinds])
        kills.update({f"{kind}, engine in a container" if boxed else kind: hits for kind, hits in series.kills.items()})
        lost, changed, left = lost + series.lost, changed + series.changed, left + len(series.problems)
        if series.lost or series.changed or series.problems:
            print(f"{series.folder}: {series.lost} lost, {series.changed} changed, left: {'; '.join(series.problems) or 'nothing'}")
        else:
            shutil.rmtree(series.folder)
        print(f"[{kills.total()}/{asked.kills}] {lost}, {changed}, {left}", flush=True)
        if kills.total() >= asked.kills:
            break
    print("\n".join(f"{count:>5}  {kind}" for kind, count in kills.most_common()))
    print(f"{kills.total()} kills: lost cells, changed bytes, leftovers: {lost}, {changed}, {left}")
    return int(bool(lost or changed or left))


if __name__ == "__main__":
    sys.exit(main())
