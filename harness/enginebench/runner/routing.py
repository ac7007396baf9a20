"""Counts which experts an engine uses, for every model that a source names: a scenario, a run, a checkpoint, or a file of counts.

In a pass of its own, in which nothing is timed: prompts go to a script on the engine's side (`adapters/workers/<engine>_routing.py`), whose
.npz file is read. `enginebench.physics.routing` interprets the counts, and `physics.captures` keeps them by the checkpoint's content.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from enginebench.adapter import GGUF_PRECISIONS, TORCH_DTYPES, WORKERS
from enginebench.checkpoints import Format, local_path, missing, prepare
from enginebench.checkpoints.gguf_metadata import read_metadata
from enginebench.domain import Deployment
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import Registry, discover
from enginebench.errors import UserError, did_you_mean
from enginebench.physics import captures
from enginebench.physics.catalogue import need_model
from enginebench.physics.routing import Routing
from enginebench.physics.routing_files import SUFFIXES, read, save
from enginebench.records.run_folder import open_run
from enginebench.runner.routing_inputs import INPUTS, Asked, prompts_of
from enginebench.runtime.machine_lease import machine_lease
from enginebench.scenario import load_scenario
from enginebench.scenario.plan import plan
from enginebench.scenario.planning import find_scenario

Step: TypeAlias = Callable[[str], None]

BATCH = 8
"""Prompts that run at the same time, where the engine's script can."""
TIMEOUT_S = 3600.0
TAIL_LINES = 12
ENGINE_OF: Mapping[Format, str] = {"safetensors": "transformers", "gguf": "llamacpp"}


@dataclass(frozen=True)
class _Model:
    """A model whose routing can be counted."""

    name: str
    checkpoint: str
    precision: str
    """Of weights that are made or loaded in it; empty: as in the file."""
    format: Format
    base: Path = Path()
    """The folder that a relative checkpoint starts from."""


def count_routing(
    source: str | Path,
    *,
    engine: str | None = None,
    precision: str = "bf16",
    inputs: Sequence[str] = INPUTS,
    requests: int = 16,
    input_tokens: int = 128,
    output_tokens: int = 64,
    model: str | None = None,
    out: str | Path | None = None,
    adapters: Sequence[str | Path] = (),
    on_step: Step = lambda _: None,
) -> Iterator[Routing]:
    """How often each expert of each layer was chosen, for every model that a source names, in a pass of its own.

    source: a scenario, a run folder, a checkpoint (a folder of safetensors, a .gguf file, 'random:...', 'hf:...' or 'package:...'), or a
    file of counts (.npz, .gguf of llama-imatrix, .npy or .json with routed experts); a file of counts is only read. engine: whose routers
    are asked; None: transformers for safetensors, llamacpp for GGUF. precision: for safetensors 'f32', 'f16' or 'bf16', for random weights
    also GGUF's. inputs: kinds of input, each for `requests` sequences: 'text' (a novel), 'code' (this package's), 'random' (token ids), or
    a data set. requests, input_tokens, output_tokens: as in a load. model: the catalogue's name of a checkpoint. out: folder for the
    counts; None: the run's own folder, else results/routing. on_step: receives one sentence per step. The counts are also kept for
    `--routing captured`. Models without experts are left out while another model has some.
    UserError when no model can be counted, or the engine is unknown, not installed, or fails.
    """
    path, registry = Path(source), discover(map(Path, adapters))
    if model is not None:
        need_model(model)
    if path.is_file() and path.suffix in SUFFIXES and not _is_model(path):
        yield read(path)
        return
    asked = Asked(tuple(inputs), requests, input_tokens, output_tokens)
    folder = Path(out) if out is not None else path / "routing" if (path / "run.json").is_file() else Path("results") / "routing"
    counted, refusals = 0, {}
    for each in _models(str(source), precision, engine, registry):
        try:
            chosen = engine or ENGINE_OF[each.format]
            python = _python_of(chosen, each, registry)
            checkpoint = prepare(each.checkpoint, each.precision or "f16", each.format, each.base, on_step)
            found = _identified(count(each.name, checkpoint, each.precision, chosen, python, asked), each, checkpoint, model)
        except UserError as error:  # a dense model among others
            refusals[each.name] = error
            continue
        counted += 1
        save(found, folder / f"{each.name}.npz")
        on_step(f"{each.name}: counts kept in {folder / each.name}.npz, and in {captures.keep(found)} for --routing captured")
        yield found
    for name, refusal in refusals.items():
        if not counted:
            raise refusal
        on_step(f"{name}: {refusal}")


def _identified(routing: Routing, model: _Model, checkpoint: str, name: str | None) -> Routing:
    """With the checkpoint's content, and with the names by which it is looked up."""
    called = [name] if name else [model.checkpoint, model.name, checkpoint]
    names = next(filter(None, (captures.known_names(each, routing.experts) for each in called)), ())
    return replace(routing, content=captures.content(Path(checkpoint)), names=names)


def _is_model(file: Path) -> bool:
    """Whether a GGUF file holds a model, and not an importance matrix."""
    if file.suffix != ".gguf":
        return False
    found = read_metadata(file, {"general.type", "general.architecture"})
    return found.get("general.architecture") not in (None, "imatrix") and found.get("general.type", "model") == "model"


def _models(source: str, precision: str, engine: str | None, registry: Registry) -> Iterator[_Model]:
    """Every model that a source names and that is available in a format that can be counted."""
    path = Path(source)
    forms: tuple[Format, ...] = (registry.need(engine).checkpoint_format,) if engine else ("safetensors", "gguf")
    if (path / "run.json").is_file():
        yield from _of(source, [launch.deployment for launch in open_run(path).launches().values()], forms)
    elif source.startswith("random:"):
        yield _Model(source.removeprefix("random:").partition("?")[0], source, precision, forms[0])
    elif source.startswith(("hf:", "package:")):
        form: Format = "gguf" if source.endswith(".gguf") else "safetensors"
        yield _Model(Path(source).stem if form == "gguf" else Path(source).name, source, "" if form == "gguf" else precision, form)
    elif path.is_file() and path.suffix == ".gguf":
        yield _Model(path.stem, str(path.resolve()), "", "gguf")
    elif (path / "config.json").is_file():
        yield _Model(path.resolve().name, str(path.resolve()), precision, "safetensors")
    else:
        file = find_scenario(source)
        planned = plan(load_scenario(file, registry), registry)
        yield from _of(source, [cell.deployment for cell in planned.cells], forms, file.resolve().parent)


def _of(source: str, deployments: Sequence[Deployment], forms: Sequence[Format], base: Path = Path()) -> Iterator[_Model]:
    """Each model once, in the first format and precision in which it is available."""
    done: set[str] = set()
    for form in forms:
        for deployment in deployments:
            for precision in (deployment.precision, "bf16"):
                known = TORCH_DTYPES if form == "safetensors" else GGUF_PRECISIONS
                usable = precision in known and missing(deployment.checkpoint, precision, form, base) is None
                if usable and deployment.model not in done and _here(deployment.checkpoint, base):
                    done.add(deployment.model)
                    yield _Model(deployment.model, deployment.checkpoint, precision, form, base)
    if not done:
        advice = "name such a folder or file, or a file of counts"
        raise UserError(f"{source}: none of its models is there as a folder of safetensors or a GGUF file", advice=advice)


def _here(reference: str, base: Path) -> bool:
    """Whether a checkpoint can be made, or is on this machine: a pass for a whole scenario downloads nothing."""
    return reference.startswith("random:") or local_path(reference, base) is not None


def engines() -> list[str]:
    """Engines with a script that takes a job."""
    return sorted(file.stem.removesuffix("_routing") for file in WORKERS.glob("*_routing.py") if file.stem != "sglang_routing")


def _python_of(engine: str, model: _Model, registry: Registry) -> Path:
    if engine not in engines():
        raise UserError(f"expert choices cannot be counted with {engine}", advice=did_you_mean(engine, engines()))
    reads = registry.need(engine).checkpoint_format
    if model.format != reads:
        raise UserError(f"{engine} reads {reads}, and {model.checkpoint} is {model.format}", advice=f"--engine {ENGINE_OF[model.format]}")
    pythons = [install.python for install in installs_of(registry.need(engine)) if install.python]
    if not pythons:
        raise UserError(f"{engine} is not installed", advice=f"bench engines install {engine}")
    return pythons[0]


def count(name: str, checkpoint: str, precision: str, engine: str, python: Path, asked: Asked) -> Routing:
    """Run the pass on a local checkpoint in the engine's environment. UserError with the script's message if it fails."""
    prompts = prompts_of(asked, Path(checkpoint))
    with machine_lease("bench routing") as lease:
        out = lease.folder / "choices.npz"
        job = {
            "name": name, "model": checkpoint, "dtype": TORCH_DTYPES.get(precision), "prompts": [prompt for _, prompt in prompts],
            "input_tokens": asked.input_tokens, "output_tokens": asked.output_tokens, "batch": BATCH, "out": str(out),
        }  # fmt: skip
        _run([str(python), str(WORKERS / f"{engine}_routing.py")], job)
        counted = read(out)
    kinds = np.array([asked.inputs.index(kind) for kind, _ in prompts], np.int8)
    choices = replace(counted.choices, input=kinds[counted.choices.sequence]) if counted.choices else None
    source = f"{counted.source}; {precision or Path(checkpoint).name}, {asked.text}"
    return replace(counted, source=source, choices=choices, inputs=asked.inputs)


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
