"""Kills the processes of a run at random moments, resumes it, and counts what was lost, changed or left behind. `make bench-faults`.

    python benchmarks/faults.py [--kills 300] [--seed 1] [--folder FOLDER]

Every trial starts `bench run` on the fake engine, sends SIGKILL to one kind of process (or to the harness and a guardian at once), lets the
run end, and starts the same command again until every cell is stored. With a Docker daemon every third trial runs the engine in a
container.

lost cells: finished before the kill and gone afterwards, or not measured after the resumed run.
changed bytes: bytes of records and samples that were finished before the kill and differ afterwards.
leftovers: processes, temporary folders, unfinished files, leases, containers and networks that are there after the resumed run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
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
from enginebench.runtime.container.leftovers import find

IMAGE = "enginebench-faults/nothing:1.0.0"
KINDS = {
    "harness": (),
    "guardian": ("runtime/guardian.py",),
    "engine": ("fake_worker.py",),
    "client": ("enginebench.loadgen.workers",),
    "sampler": ("enginebench.telemetry.sampler",),
    "scraper": ("runtime/scraper.py",),
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
  - {{concurrency: [2, 3, 4], input_tokens: 16, output_tokens: 16, requests: 16, timeout_s: 5}}
"""


@dataclass
class Trial:
    """One run that is killed once."""

    folder: Path
    kind: str
    client: Any
    """Of the Docker daemon; None: the engine runs as a process."""
    problems: list[str] = field(default_factory=list)
    lost: int = 0
    changed: int = 0
    hit: bool = False
    """Whether a process of that kind was there to be killed."""

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
        command = [sys.executable, "-m", "enginebench", "run", "s.yaml", "--no-html", "--client-processes", "2", *arguments]
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=output, stderr=output)

    def run(self, after_s: float) -> None:
        """Kill, resume, count."""
        process = self.start()
        self._kill(process, after_s)
        done = self._finished()
        process.wait(120)
        for _ in range(3):
            self.start("--retry-failed" if self._stored() == 3 else "--no-html").wait(120)
            if len(self._finished()) >= 6:  # record and samples of three cells
                break
        now = self._finished()
        self.lost = sum(file not in now for file in done) + sum(len([f for f in now if kind in f]) < 3 for kind in ("cells", "samples"))
        self.changed = sum(_differences(content, now[file]) for file, content in done.items() if file in now)
        self.problems += self._leftovers()

    def _kill(self, process: subprocess.Popen[bytes], after_s: float) -> None:
        until = time.monotonic() + after_s
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.005)
        targets: list[int] = []
        while process.poll() is None and not (targets := self._targets(process.pid)):
            time.sleep(0.005)
        self.hit = bool(targets)
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _targets(self, harness: int) -> list[int]:
        """The processes to kill now; none while there is none of the kind."""
        if self.kind == "harness":
            return [harness]
        if self.kind == "container":
            with contextlib.suppress(LaunchFailed, psutil.Error):
                ours = [item for item in find(self.client) if item.kind == "container" and item.state == "running"]
                return [self.client.api.inspect_container(item.id)["State"]["Pid"] for item in ours if self._owned(item.id)]
            return []
        found = [pid for pid, command in _children(harness) if any(sign in command for sign in KINDS[self.kind])]
        return [*found, harness] if found and self.kind.startswith("harness and") else found[:1]

    def _owned(self, container: str) -> bool:
        names = self.client.api.inspect_container(container)["Config"]["Env"]
        return any(name.startswith("ENGINEBENCH_LAUNCH=") for name in names)

    def _stored(self) -> int:
        return len(list(self.folder.glob("results/*/cells/*.json")))

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
        for name in ("tmp", "leases", "home/leases"):
            yield from (f"file {path}" for path in (self.folder / name).glob("*"))
        yield from (f"file {path}" for path in self.folder.rglob("*") if path.name.endswith((".part", ".new")) or ".draft-" in path.name)
        if self.client is not None:
            yield from (item.text for item in find(self.client))


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
    """How long the run takes that the trials kill."""
    trial, began = Trial(folder, "none", client), time.monotonic()
    if code := trial.start().wait(300):
        sys.exit(f"a run that nobody kills ended with exit code {code}:\n{(folder / 'output').read_text()}")
    took = time.monotonic() - began
    shutil.rmtree(folder)
    return took


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials; the exit code is 1 if anything was lost, changed or left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the trials run; default: a temporary folder, removed if nothing was found")
    asked = parser.parse_args(arguments)
    chance, client = random.Random(asked.seed), daemon()  # noqa: S311  # moments, not keys
    base = asked.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    took = {None: undisturbed_s(base / "plain", None)} | ({client: undisturbed_s(base / "boxed", client)} if client else {})
    lost = changed = left = 0
    kills: Counter[str] = Counter()
    for number in range(asked.kills):
        boxed = client if client is not None and number % 3 == 2 else None
        kind = chance.choice(BOXED if boxed else PLAIN)
        trial = Trial(base / f"{number:03}", kind, boxed)
        trial.run(chance.uniform(0, took[boxed]))
        kills[kind + (" (docker)" if boxed and "container" not in kind else "") if trial.hit else "after the end"] += 1
        lost, changed, left = lost + trial.lost, changed + trial.changed, left + len(trial.problems)
        if trial.lost or trial.changed or trial.problems:
            print(f"{trial.folder}: {kind}: {trial.lost} lost, {trial.changed} changed, left: {'; '.join(trial.problems) or 'nothing'}")
        else:
            shutil.rmtree(trial.folder)
        print(f"[{number + 1}/{asked.kills}] {lost}, {changed}, {left}", flush=True)
    print("\n".join(f"{count:>5}  {kind}" for kind, count in kills.most_common()))
    print(f"{sum(kills.values())} kills: lost cells, changed bytes, leftovers: {lost}, {changed}, {left}")
    return int(bool(lost or changed or left))


if __name__ == "__main__":
    sys.exit(main())
