"""`bench routing`: which experts a model's tokens go to, counted in a pass of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enginebench.cli.shared import ADAPTERS, AS_JSON, RESULTS, find_scenario, installs_of, print_json, show
from enginebench.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from enginebench.domain import Deployment
    from enginebench.engines.registry import Registry
    from enginebench.physics.routing import Routing
    from enginebench.runner.routing_pass import Pass

_EPILOG = """\b
Examples:
  bench routing cpu_engines                          the models of a scenario
  bench routing results/2026-11-21-cpu_engines       the models of a run; the counts are kept with it
  bench routing models/olmoe --ep 8 --batch 1 --batch 32
  bench routing imatrix.gguf answers.json            what llama.cpp or a server wrote
"""


@click.command(epilog=_EPILOG)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--engine", default="transformers", show_default=True, help="Whose routers are asked.")
@click.option("--precision", type=click.Choice(["f32", "f16", "bf16"]), default="bf16", show_default=True, help="For a checkpoint.")
@click.option("--requests", type=click.IntRange(1, 4096), default=16, show_default=True, help="Sequences; a batch can be no larger.")
@click.option("--input-tokens", type=click.IntRange(1), default=128, show_default=True)
@click.option("--output-tokens", type=click.IntRange(2), default=64, show_default=True)
@click.option("--prompts", default="text", show_default=True, help="As in a load: text, random or a data set.")
@click.option("--ep", "ranks", type=click.IntRange(1), multiple=True, default=(2, 4, 8), help="Expert-parallel ranks (repeatable).")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=(1, 4, 16), help="Sequences in a step (repeatable).")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Keep the counts here instead of in results/routing.")
@ADAPTERS
@AS_JSON
def routing(
    sources: Sequence[str],
    engine: str,
    precision: str,
    ranks: Sequence[int],
    batches: Sequence[int],
    out: Path | None,
    adapters: Sequence[Path],
    as_json: bool,
    **asked: Any,
) -> None:
    """Count which experts tokens are sent to, in a pass of its own, or read the counts an engine wrote.

    SOURCE is a scenario, a run, a checkpoint (folder or random:...), or a file of counts (.npz, .gguf of llama-imatrix, .npy or .json
    with routed experts). For each model: the share of the hottest experts, entropy, balance under expert parallelism, and distinct
    experts per decode step against the batch size, beside what uniform routing would give.
    """
    from enginebench.engines.registry import discover
    from enginebench.physics.routing import summary
    from enginebench.runner.routing_pass import Pass

    registry = discover(adapters)
    found = [
        summary(each, ranks=ranks, batches=batches)
        for source in sources
        for each in _routings(source, engine, precision, Pass(**asked), out, registry)
    ]
    if as_json:
        print_json(list(found))
    else:
        for each in found:
            _show(each)


def _routings(source: str, engine: str, precision: str, asked: Pass, out: Path | None, registry: Registry) -> Iterator[Routing]:
    from enginebench.physics.routing_files import SUFFIXES, read, save

    path = Path(source)
    if path.is_file() and path.suffix in SUFFIXES:
        yield read(path)
        return
    keep = out or (path / "routing" if (path / "run.json").is_file() else RESULTS / "routing")
    measured, refusal = 0, None
    for name, reference, stored in _models(source, precision, registry):
        try:
            counted = _count(name, reference, stored, engine, asked, registry)
        except UserError as error:  # a dense model among others
            refusal = error
            show(f"{name}: {error}")
            continue
        measured += 1
        save(counted, keep / f"{name}.npz")
        click.echo(f"{name}: counts kept in {keep / name}.npz", err=True)
        yield counted
    if refusal is not None and not measured:
        raise refusal


def _models(source: str, precision: str, registry: Registry) -> Iterator[tuple[str, str, str]]:
    """(name, checkpoint reference, precision) of every model that a source names and that can be had as safetensors."""
    path = Path(source)
    if (path / "run.json").is_file():
        from enginebench.records.store import open_run

        yield from _of(source, [launch.deployment for launch in open_run(path).launches().values()])
    elif source.startswith("random:"):
        yield source.removeprefix("random:").partition("?")[0], source, precision
    elif (path / "config.json").is_file():
        yield path.resolve().name, str(path.resolve()), precision
    else:
        from enginebench.scenario import load_scenario
        from enginebench.scenario.plan import plan

        file = find_scenario(source)
        yield from _of(source, [cell.deployment for cell in plan(load_scenario(file, registry), registry).cells], file.resolve().parent)


def _of(source: str, deployments: Sequence[Deployment], base: Path = Path()) -> Iterator[tuple[str, str, str]]:
    """Each model once, in the first precision in which a folder of safetensors can be had."""
    from enginebench.adapter import TORCH_DTYPES
    from enginebench.checkpoints import missing

    done: set[str] = set()
    for deployment in deployments:
        reference = deployment.checkpoint if deployment.checkpoint.startswith("random:") else str(base / deployment.checkpoint)
        for precision in (deployment.precision, "bf16"):
            usable = precision in TORCH_DTYPES and missing(reference, precision, "safetensors", Path()) is None
            if usable and deployment.model not in done:
                done.add(deployment.model)
                yield deployment.model, reference, precision
    if not done:
        raise UserError(
            f"{source}: none of its models is there as a folder of safetensors", advice="name such a folder, or a file of counts"
        )


def _count(name: str, reference: str, precision: str, engine: str, asked: Pass, registry: Registry) -> Routing:
    from enginebench.checkpoints import prepare
    from enginebench.runner.routing_pass import count, engines

    if engine not in engines():
        raise UserError(f"{engine}'s routers cannot be asked", advice=did_you_mean(engine, engines()))
    pythons = [install.python for install in installs_of(registry.need(engine)) if install.python]
    if not pythons:
        raise UserError(f"{engine} is not installed", advice=f"bench engines install {engine}")
    checkpoint = prepare(reference, precision, "safetensors", Path(), lambda text: click.echo(text, err=True))
    return count(name, checkpoint, precision, engine, pythons[0], asked)


def _show(found: dict[str, Any]) -> None:
    from enginebench.domain.text import printable

    top = f"top-{found['top_k']}" if found["top_k"] else "counts only"
    click.echo(f"{printable(found['model'])}: {found['experts']} experts, {top}, {len(found['layers'])} layers with experts")
    click.echo(f"  {printable(found['source'])}; {found['choices']:,} choices")
    mean, worst, hottest = found["mean"], found["worst"], found["hottest"]
    even = hottest / found["experts"]
    click.echo(
        f"  hottest {hottest} of {found['experts']} experts: {mean['hottest_share']:.1%} of the choices, "
        f"{worst['hottest_share']:.1%} in the most uneven layer (even: {even:.1%})"
    )
    click.echo(f"  normalised entropy: {mean['entropy']:.3f}, {worst['entropy']:.3f} in the most uneven layer (even: 1)")
    for name in mean:
        if name.startswith("imbalance_ep"):
            label = f"EP={name.removeprefix('imbalance_ep')}"
            click.echo(f"  {label}: busiest rank {mean[name]:.2f} x the mean, {worst[name]:.2f} in the most uneven layer")
    for step in found["steps"]:
        click.echo(
            f"  batch {step['batch']:>3}: {step['distinct']:.1f} distinct experts per step and layer (uniform: {step['uniform']:.1f})"
        )
    click.echo("")
