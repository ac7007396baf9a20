"""Expert counts of every model that a source names: a scenario, a run, a checkpoint, or a file of counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.adapter import TORCH_DTYPES
from enginebench.checkpoints import missing, prepare
from enginebench.domain import Deployment
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import Registry, discover
from enginebench.errors import UserError, did_you_mean
from enginebench.physics.routing import Routing
from enginebench.physics.routing_files import SUFFIXES, read, save
from enginebench.records.run_folder import open_run
from enginebench.runner.routing_pass import Pass, count, engines
from enginebench.scenario import load_scenario
from enginebench.scenario.plan import plan
from enginebench.scenario.planning import find_scenario

Step = Callable[[str], None]


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
    registry, asked = discover(map(Path, adapters)), Pass(requests, input_tokens, output_tokens, prompts)
    folder = Path(out) if out is not None else path / "routing" if (path / "run.json").is_file() else Path("results") / "routing"
    counted, refusal = 0, None
    for model in _models(str(source), precision, registry):
        try:
            found = _count(model, engine, registry, asked, on_step)
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


def _count(model: _Model, engine: str, registry: Registry, asked: Pass, on_step: Step) -> Routing:
    if engine not in engines():
        raise UserError(f"expert choices cannot be counted with {engine}", advice=did_you_mean(engine, engines()))
    pythons = [install.python for install in installs_of(registry.need(engine)) if install.python]
    if not pythons:
        raise UserError(f"{engine} is not installed", advice=f"bench engines install {engine}")
    checkpoint = prepare(model.checkpoint, model.precision, "safetensors", Path(), on_step)
    return count(model.name, checkpoint, model.precision, engine, pythons[0], asked)
