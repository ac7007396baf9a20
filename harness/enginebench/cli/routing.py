"""`bench routing`: which experts a model's tokens go to, counted in a pass of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import enginebench
from enginebench.cli.shared import ADAPTERS, AS_JSON, print_json, show
from enginebench.domain import plain
from enginebench.domain.formatting import printable

_EPILOG = """\b
Examples:
  bench routing cpu_engines                          the models of a scenario
  bench routing results/2026-11-21-cpu_engines       the models of a run; the counts are kept with it
  bench routing models/olmoe --ep 8 --batch 1 --batch 32
  bench routing imatrix.gguf answers.json            what llama.cpp or a server wrote
"""


@click.command(epilog=_EPILOG)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--engine", default="transformers", help="The engine that runs the model and reports the experts.")
@click.option("--precision", type=click.Choice(["f32", "f16", "bf16"]), default="bf16", help="For a checkpoint.")
@click.option("--requests", type=click.IntRange(1, 4096), default=16, help="Sequences; the largest possible batch.")
@click.option("--input-tokens", type=click.IntRange(1), default=128)
@click.option("--output-tokens", type=click.IntRange(2), default=64)
@click.option("--prompts", default="text", help="As in a load: text, random or a data set.")
@click.option("--ep", "ranks", type=click.IntRange(1), multiple=True, default=(2, 4, 8), help="Expert-parallel ranks (repeatable).")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=(1, 4, 16), help="Sequences in a step (repeatable).")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Store the counts here instead of in results/routing.")
@ADAPTERS
@AS_JSON
def routing(sources: Sequence[str], ranks: Sequence[int], batches: Sequence[int], as_json: bool, **asked: Any) -> None:
    """Count which experts tokens are sent to, in a pass of its own, or read the counts an engine wrote.

    SOURCE is a scenario, a run, a checkpoint (folder or random:...), or a file of counts (.npz, .gguf of llama-imatrix, .npy or .json
    with routed experts). For each model: the share of the hottest experts, entropy, balance under expert parallelism, and distinct
    experts per decode step against the batch size, next to what uniform routing would give.
    """
    found = [
        enginebench.routing_summary(each, ranks=ranks, batches=batches)
        for source in sources
        for each in enginebench.count_routing(source, **asked, on_step=show)
    ]
    if as_json:
        print_json([plain(each) for each in found])
    else:
        for each in found:
            _show(each)


def _show(found: enginebench.RoutingSummary) -> None:
    top = f"top-{found.top_k}" if found.top_k else "counts only"
    click.echo(f"{printable(found.model)}: {found.experts} experts, {top}, {len(found.layers)} layers with experts")
    click.echo(f"  {printable(found.source)}; {found.choices:,} choices")
    mean, worst, uneven = found.mean, found.worst, "in the most uneven layer"
    click.echo(
        f"  hottest {found.hottest} of {found.experts} experts: {mean['hottest_share']:.1%} of the choices, "
        f"{worst['hottest_share']:.1%} {uneven} (even: {found.hottest / found.experts:.1%})"
    )
    click.echo(f"  normalised entropy: {mean['entropy']:.3f}, {worst['entropy']:.3f} {uneven} (even: 1)")
    for name in mean:
        if name.startswith("imbalance_ep"):
            label = f"EP={name.removeprefix('imbalance_ep')}"
            click.echo(f"  {label}: busiest rank {mean[name]:.2f} x the mean, {worst[name]:.2f} {uneven}")
    for step in found.steps:
        click.echo(f"  batch {step.batch:>3}: {step.distinct:.1f} distinct experts per step and layer (uniform: {step.uniform:.1f})")
    click.echo("")
