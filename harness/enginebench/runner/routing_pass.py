"""Counts which experts an engine uses: sends prompts to a script on the engine's side and reads the .npz file that it writes.

The script is `adapters/workers/<engine>_routing.py`. Nothing is timed in this pass. `enginebench.physics.routing` interprets the counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from enginebench.adapter import TORCH_DTYPES, WORKERS
from enginebench.checkpoints import read_vocabulary
from enginebench.domain import ClosedLoop
from enginebench.errors import UserError
from enginebench.physics.routing import Routing
from enginebench.physics.routing_files import read
from enginebench.workload import make_prompts

TAIL_LINES = 12


@dataclass(frozen=True)
class Pass:
    """What is sent."""

    requests: int = 16
    input_tokens: int = 128
    """Exact length of each prompt."""
    output_tokens: int = 64
    """Greedy tokens generated after each prompt."""
    prompts: str = "text"
    """As in a load."""
    batch: int = 8
    """Prompts that run at the same time."""
    seed: int = 0
    timeout_s: float = 3600.0

    def text(self) -> str:
        return f"{self.requests} x {self.input_tokens} + {self.output_tokens} tokens of {self.prompts} prompts"


def engines() -> list[str]:
    """Engines with a script that takes a job."""
    return sorted(file.stem.removesuffix("_routing") for file in WORKERS.glob("*_routing.py") if file.stem != "sglang_routing")


def count(name: str, checkpoint: str, precision: str, engine: str, python: Path, asked: Pass) -> Routing:
    """Run the pass on a local checkpoint folder in the engine's environment. UserError with the script's message if it fails."""
    load = ClosedLoop(
        input_tokens=asked.input_tokens,
        output_tokens=asked.output_tokens,
        requests=asked.requests,
        prompts=asked.prompts,
        seed=asked.seed,
    )
    prompts = make_prompts(read_vocabulary(Path(checkpoint)), load, asked.requests, salt="routing")
    with tempfile.TemporaryDirectory(prefix="enginebench-") as folder:
        out = Path(folder) / "choices.npz"
        job = {
            "name": name,
            "model": checkpoint,
            "dtype": TORCH_DTYPES[precision],
            "prompts": [list(prompt.ids or ()) for prompt in prompts],
            "output_tokens": asked.output_tokens,
            "batch": asked.batch,
            "out": str(out),
        }
        _run([str(python), str(WORKERS / f"{engine}_routing.py")], job, asked.timeout_s)
        counted = read(out)
    return replace(counted, source=f"{counted.source}; {precision}, {asked.text()}")


def _run(command: list[str], job: dict[str, object], timeout_s: float) -> None:
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            command, input=json.dumps(job) + "\n", env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"the routing pass did not end within {timeout_s:g} s") from None
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith('{"error"')]
        reason = json.loads(errors[-1])["error"] if errors else "\n".join(done.stderr.rstrip().splitlines()[-TAIL_LINES:])
        raise UserError(f"the routing pass failed: {reason}")
