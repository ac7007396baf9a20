"""Counts which experts an engine uses, for every model that a source names: a scenario, a run, a checkpoint, or a file of counts.

In a pass of its own, in which nothing is timed: prompts go to a script on the engine's side (`adapters/workers/<engine>_routing.py`), whose
.npz file is read. `enginebench.physics.routing` interprets the counts.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from enginebench.adapter import TORCH_DTYPES, WORKERS
from enginebench.checkpoints import missing, prepare, read_vocabulary
from enginebench.domain import ClosedLoop, Deployment, Load
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import Registry, discover
from enginebench.errors import UserError, did_you_mean
from enginebench.physics.routing import Routing
from enginebench.physics.routing_files import SUFFIXES, read, save
from enginebench.records.run_folder import open_run
from enginebench.runtime.machine_lease import machine_lease
from enginebench.scenario import load_scenario
from enginebench.scenario.plan import plan
from enginebench.scenario.planning import find_scenario
from enginebench.workload import make_prompts

Step: TypeAlias = Callable[[str], None]

BATCH = 8
"""Prompts that run at the same time."""
TIMEOUT_S = 3600.0
TAIL_LINES = 12


@dataclass(frozen=True)
class _Model:
    """A model whose routing can be counted."""

    name: str
    checkpoint: str
    precision: str


def count_routing(
    source: str | Path,
    *,
    engine: str = "transformers",
    precision: str = "bf16",
    requests: int = 16,
    input_tokens: int = 128,
    output_tokens: int = 64,
    prompts: str = "text",
    out: str | Path | None = None,
    adapters: Sequence[str | Path] = (),
    on_step: Step = lambda _: None,
) -> Iterator[Routing]:
    """How often each expert of each layer was chosen, for every model that a source names, in a pass of its own.

    source: a scenario, a run folder, a checkpoint (folder or 'random:...'), or a file of counts (.npz, .gguf of llama-imatrix, .npy or
    .json with routed experts); a file is only read. engine: whose routers are asked. precision: for a checkpoint; 'f32', 'f16' or 'bf16'.
    requests, input_tokens, output_tokens, prompts: what is sent, as in a load. out: folder for the counts; None: the run's own folder,
    else results/routing. on_step: receives one sentence per step. Models without experts are left out while another model has some.
    UserError when no model can be counted, or the engine is unknown, not installed, or fails.
    """
    path = Path(source)
    if path.is_file() and path.suffix in SUFFIXES:
        yield read(path)
        return
    registry = discover(map(Path, adapters))
    load = ClosedLoop(input_tokens=input_tokens, output_tokens=output_tokens, requests=requests, prompts=prompts)
    folder = Path(out) if out is not None else path / "routing" if (path / "run.json").is_file() else Path("results") / "routing"
    counted, refusal = 0, None
    for model in _models(str(source), precision, registry):
        try:
            python = _python_of(engine, registry)
            checkpoint = prepare(model.checkpoint, model.precision, "safetensors", Path(), on_step)
            found = count(model.name, checkpoint, model.precision, engine, python, load)
        except UserError as error:  # a dense model among others
            refusal = error
            on_step(f"{model.name}: {error}")
            continue
        counted += 1
        save(found, folder / f"{model.name}.npz")
        on_step(f"{model.name}: counts kept in {folder / model.name}.npz")
        yield found
    if refusal is not None and not counted:
        raise refusal


def _models(source: str, precision: str, registry: Registry) -> Iterator[_Model]:
    """Every model that a source names and that is available as safetensors."""
    path = Path(source)
    if (path / "run.json").is_file():
        yield from _of(source, [launch.deployment for launch in open_run(path).launches().values()])
    elif source.startswith("random:"):
        yield _Model(source.removeprefix("random:").partition("?")[0], source, precision)
    elif (path / "config.json").is_file():
        yield _Model(path.resolve().name, str(path.resolve()), precision)
    else:
        file = find_scenario(source)
        planned = plan(load_scenario(file, registry), registry)
        yield from _of(source, [cell.deployment for cell in planned.cells], file.resolve().parent)


def _of(source: str, deployments: Sequence[Deployment], base: Path = Path()) -> Iterator[_Model]:
    """Each model once, in the first precision in which a folder of safetensors is available."""
    done: set[str] = set()
    for deployment in deployments:
        reference = deployment.checkpoint if deployment.checkpoint.startswith("random:") else str(base / deployment.checkpoint)
        for precision in (deployment.precision, "bf16"):
            usable = precision in TORCH_DTYPES and missing(reference, precision, "safetensors", Path()) is None
            if usable and deployment.model not in done:
                done.add(deployment.model)
                yield _Model(deployment.model, reference, precision)
    if not done:
        advice = "name such a folder, or a file of counts"
        raise UserError(f"{source}: none of its models is there as a folder of safetensors", advice=advice)


def engines() -> list[str]:
    """Engines with a script that takes a job."""
    return sorted(file.stem.removesuffix("_routing") for file in WORKERS.glob("*_routing.py") if file.stem != "sglang_routing")


def _python_of(engine: str, registry: Registry) -> Path:
    if engine not in engines():
        raise UserError(f"expert choices cannot be counted with {engine}", advice=did_you_mean(engine, engines()))
    pythons = [install.python for install in installs_of(registry.need(engine)) if install.python]
    if not pythons:
        raise UserError(f"{engine} is not installed", advice=f"bench engines install {engine}")
    return pythons[0]


def count(name: str, checkpoint: str, precision: str, engine: str, python: Path, load: Load) -> Routing:
    """Run the pass on a local checkpoint folder in the engine's environment. UserError with the script's message if it fails."""
    prompts = make_prompts(read_vocabulary(Path(checkpoint)), load, load.requests, salt="routing")
    with machine_lease("bench routing") as lease:
        out = lease.folder / "choices.npz"
        job = {
            "name": name, "model": checkpoint, "dtype": TORCH_DTYPES[precision], "prompts": [list(prompt.ids or ()) for prompt in prompts],
            "output_tokens": load.output_tokens, "batch": BATCH, "out": str(out),
        }  # fmt: skip
        _run([str(python), str(WORKERS / f"{engine}_routing.py")], job)
        counted = read(out)
    sent = f"{load.requests} x {load.input_tokens} + {load.output_tokens} tokens of {load.prompts} prompts"
    return replace(counted, source=f"{counted.source}; {precision}, {sent}")


def _run(command: list[str], job: Mapping[str, object]) -> None:
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    text = json.dumps(job) + "\n"
    try:
        done = subprocess.run(command, input=text, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"the routing pass did not end within {TIMEOUT_S:g} s") from None
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith('{"error"')]
        reason = json.loads(errors[-1])["error"] if errors else "\n".join(done.stderr.rstrip().splitlines()[-TAIL_LINES:])
        raise UserError(f"the routing pass failed: {reason}")
