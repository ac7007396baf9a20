"""`bench routing`: which experts a model's tokens go to, counted in a pass of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import enginebench
from enginebench.cli.shared import ADAPTERS, AS_JSON, FILE_ONLY, print_json, show, write
from enginebench.domain import plain
from enginebench.domain.formatting import printable
from enginebench.errors import UserError

_EPILOG = """\b
Examples:
  bench routing cpu_engines                          the models of a scenario
  bench routing results/2026-11-21-cpu_engines       the models of a run; the counts are kept with it
  bench routing models/olmoe --ep 8 --batch 1 --batch 32
  bench routing olmoe-q4_k_m.gguf --inputs text,code,jsonl:traffic.jsonl --html curve.html
  bench routing imatrix.gguf answers.json            what llama.cpp or a server wrote
\b
The counts are kept by the checkpoint's content: bench offload, ceiling and audit use them with --routing captured.
"""


def _kinds(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


@click.command(epilog=_EPILOG)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--engine", help="The engine that runs the model.  [default: transformers; llamacpp for a GGUF]")
@click.option("--precision", default="bf16", help="For safetensors (f32, f16, bf16) and random weights.", show_default=True)
@click.option("--inputs", callback=_kinds, default="text,code,random", help="Kinds of input, or data sets.", metavar="KIND,...")
@click.option("--requests", type=click.IntRange(1, 4096), default=16, help="Sequences of each kind; all of them: the largest batch.")
@click.option("--input-tokens", type=click.IntRange(1), default=128)
@click.option("--output-tokens", type=click.IntRange(2), default=64)
@click.option("--model", metavar="NAME", help="What the catalogue calls this checkpoint.")
@click.option("--ep", "ranks", type=click.IntRange(1), multiple=True, default=(2, 4, 8), help="Expert-parallel ranks (repeatable).")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=(1, 4, 16), help="Sequences in a step (repeatable).")
@click.option("--layers", "by_layer", is_flag=True, help="Also print the curve of every layer.")
@click.option("--html", type=FILE_ONLY, help="Also write the curves as a page.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Store the counts here instead of in results/routing.")
@ADAPTERS
@AS_JSON
def routing(
    sources: Sequence[str], ranks: Sequence[int], batches: Sequence[int], by_layer: bool, html: Path | None, as_json: bool, **asked: Any
) -> None:
    """Count which experts tokens are sent to, in a pass of its own, or read the counts an engine wrote.

    SOURCE is a scenario, a run, a checkpoint (a folder, a .gguf file, random:...), or a file of counts (.npz, .gguf of llama-imatrix, .npy
    or .json with routed experts). For each model: the share of the choices that the n hottest experts cover, for natural text, code and
    random ids; entropy, balance under expert parallelism, and distinct experts per decode step, next to what uniform routing would give.
    """
    found = [
        enginebench.routing_summary(each, ranks=ranks, batches=batches)
        for source in sources
        for each in enginebench.count_routing(source, **asked, on_step=show)
    ]
    if html is not None and len(found) != 1:
        raise UserError(f"--html writes one model's curves, and {len(found)} were counted", advice="name one checkpoint")
    if as_json:
        print_json([plain(each) for each in found])
    else:
        for each in found:
            for line in (*_head(each), "", *_curve(each, by_layer=by_layer), "", *_figures(each), ""):
                click.echo(line)
    if html is not None:
        write(html, found[0].page())


def _head(found: enginebench.RoutingSummary) -> Iterator[str]:
    top = f"top-{found.top_k}" if found.top_k else "counts only"
    yield f"{printable(found.model)}: {found.experts} experts, {top}, {len(found.layers)} layers with experts"
    yield f"  {printable(found.source)}; {found.choices:,} choices"


def _curve(found: enginebench.RoutingSummary, *, by_layer: bool) -> Iterator[str]:
    """A row per number of experts; for each kind of input its share, and that of experts that were picked on other sequences of it."""
    yield "  share of the choices that the n hottest experts of each layer cover: mean (lowest-highest layer);"
    yield "  unseen: experts picked on one half of the sequences, counted on the other"
    names = [printable(curve.input)[:16] for curve in found.curves]
    yield f"  {'n':>4} {'even':>7}" + "".join(f"  {name:>16} {'unseen':>7}" for name in names)
    for n in found.marks:
        cells = []
        for curve in found.curves:
            low, high = curve.range(n)
            unseen = f"{curve.unseen[n - 1]:7.1%}" if curve.unseen else f"{'-':>7}"
            cells.append(f"  {f'{curve.mean[n - 1]:.1%} ({low:.0%}-{high:.0%})':>16} {unseen}")
        yield f"  {n:>4} {n / found.experts:7.1%}" + "".join(cells)
    for curve in found.curves:
        elsewhere = [f"{shares[found.hottest - 1]:.1%} of {printable(other)}" for other, shares in curve.elsewhere.items()]
        if elsewhere:
            yield f"  the {found.hottest} hottest of {printable(curve.input)} cover {', '.join(elsewhere)}"
    if by_layer:
        yield from _by_layer(found)


def _by_layer(found: enginebench.RoutingSummary) -> Iterator[str]:
    for curve in found.curves:
        yield f"\n  {printable(curve.input)}, by layer\n  {'layer':>5}" + "".join(f" {f'top {n}':>8}" for n in found.marks)
        for layer, shares in zip(found.layers, curve.layers, strict=True):
            yield f"  {layer:>5}" + "".join(f" {shares[n - 1]:8.1%}" for n in found.marks)


def _figures(found: enginebench.RoutingSummary) -> Iterator[str]:
    mean, worst, uneven = found.mean, found.worst, "in the most uneven layer"
    yield (
        f"  hottest {found.hottest} of {found.experts} experts: {mean['hottest_share']:.1%} of the choices, "
        f"{worst['hottest_share']:.1%} {uneven} (even: {found.hottest / found.experts:.1%})"
    )
    yield f"  normalised entropy: {mean['entropy']:.3f}, {worst['entropy']:.3f} {uneven} (even: 1)"
    for name in mean:
        if name.startswith("imbalance_ep"):
            yield f"  EP={name.removeprefix('imbalance_ep')}: busiest rank {mean[name]:.2f} x the mean, {worst[name]:.2f} {uneven}"
    for step in found.steps:
        yield f"  batch {step.batch:>3}: {step.distinct:.1f} distinct experts per step and layer (uniform: {step.uniform:.1f})"
