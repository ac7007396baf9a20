"""`bench ceiling`: how fast a model can be at most, and what limits it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FILE_ONLY, POSITIVE, Number, count, expectation_options, model_options, print_json, write
from enginebench.domain.formatting import duration, rounded

_EPILOG = """\b
Examples:
  bench ceiling llama4-scout --hardware 4xh100 --precision f16 --context 2k
  bench ceiling qwen3-30b-a3b --hardware h100 --routing zipf:1.0 --html ceiling.html
  bench ceiling llama4-scout --hardware 4xh100 --precision f16 --context 0 --reach 5100
  bench ceiling llama4-scout --hardware 1xrtx4090+128gb --precision q4_k_m --cpu-experts 37 --batch 1
"""


@click.command(epilog=_EPILOG)
@model_options
@click.option("--context", "contexts", type=count, metavar="TOKENS", multiple=True, default=("2k",), help="Of each sequence; 0: no cache.")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, help="Sequences in a step (repeatable).  [default: 1 to 1024]")
@click.option("--routing", default="even", help="even, zipf:EXPONENT, captured[:INPUT] (by bench routing), or a file of counts.")
@click.option("--measured", is_flag=True, help="Use the bandwidth that a copy reached on such a device, where known.")
@click.option("--bandwidth", "bandwidth_gb_s", type=POSITIVE, metavar="GB/S", help="Per device, not the data sheet's.")
@click.option("--speculate", type=click.IntRange(1), metavar="N", help="Tokens drafted and checked in each step.")
@click.option("--acceptance", type=Number(0, 1), default=0.7, help="Of a drafted token.")
@click.option("--draft", metavar="MODEL", help="The drafting model, in the same precision; without it, drafting takes no time.")
@click.option("--reach", type=POSITIVE, metavar="TOK/S", help="Show from which batch on this rate is possible.")
@expectation_options
@click.option("--html", type=FILE_ONLY, help="Also write the curves as a page.")
@AS_JSON
def ceiling(model: enginebench.PlacedModel, reach: float | None, html: Path | None, as_json: bool, **asked: Any) -> None:
    """Show how fast decoding and prefill can be at most, over batch and context: memory, arithmetic, links, and which one limits.

    MODEL is a name of the catalogue, a config.json, a folder of safetensors, a .gguf file, hf:ORG/NAME (only
    its config.json is fetched), or random:...
    """
    found = enginebench.ceiling(model, **asked)
    if as_json:
        print_json(found.to_dict(reach))
    else:
        device = found.setting.machine.device
        limits = "" if all(map(math.isfinite, device.flops.values())) else ", arithmetic not stated, so no limit"
        click.echo(f"{found.model.title}, {rounded(device.bandwidth / 1e9)} GB/s per device{limits}, {found.routing}")
        for context in found.curves:
            for line in (*_table(found, context), *_remarks(found, context, reach)):
                click.echo(line)
    if html is not None:
        write(html, found.page())


def _table(found: enginebench.Ceilings, context: int) -> Iterator[str]:
    room, names = found.model.room(context), [name if len(name) <= 10 else "routing" for name in found.lines]
    how = f", with {found.routing}" if found.mixture else ""
    unit, size = _unit(max(step.time_s for step in found.curves[context]))
    yield f"\ndecode, {context:,} tokens held by each sequence: tok/s at most; the step and what takes it, in {unit}{how}"
    usual = found.expected[context]
    names += ["expected"] if any(usual) else []
    heads = " ".join(f"{name:>10}" for name in names)
    yield (
        f"{'batch':>7} {heads} {'per user':>9} {'step':>8} | {'weights':>8} {'experts':>8} {'KV cache':>8} {'host':>8} | "
        f"{'compute':>8} {'link':>8} | {'touched':>7}  bottleneck"
    )
    for i, step in enumerate(found.curves[context]):
        rates = " ".join(f"{curve[context][i].tokens_per_s:>10,.0f}" for curve in found.lines.values())
        if any(usual):
            rates += f" {each.tokens_per_s:>10,.0f}" if (each := usual[i]) is not None else f" {'unknown':>10}"
        memory = " ".join(f"{step.memory[name] / size:8.3f}" for name in ("weights", "experts", "KV cache", "host"))
        touched = f"{step.touched:7.1f}" if step.touched is not None else f"{'-':>7}"
        full = "" if step.batch <= room else "  (no room)"
        yield (
            f"{step.batch:>7,} {rates} {step.tokens_per_s_user:>9,.1f} {step.time_s / size:8.3f} | {memory} | "
            f"{step.seconds['compute'] / size:8.3f} {step.seconds['link'] / size:8.3f} | {touched}  {step.bottleneck}{full}"
        )
    yield from _expected(found, context)
    if found.mixture:
        yield "bound: whatever the routing, as if all tokens used the same experts; even: if all experts are used equally"


def _unit(longest: float) -> tuple[str, float]:
    """The unit of the times of a table, with its length in s. longest: the longest of them, in s."""
    return ("ms", 1e-3) if longest < 1 else ("s", 1.0) if longest < 100 else ("min", 60.0)


def _expected(found: enginebench.Ceilings, context: int) -> Iterator[str]:
    """What the expectation rests on: one line for each class of measurements."""
    known = [(step.batch, each) for step, each in zip(found.curves[context], found.expected[context], strict=True) if each is not None]
    if not known:
        yield f"expected: unknown, as no measurement of {found.model.engine or 'an engine'} in such a case is known"
    for basis in dict.fromkeys(each.basis for _, each in known):
        batches = [batch for batch, each in known if each.basis == basis]
        low, high = next((each.low / each.tokens_per_s, each.high / each.tokens_per_s) for _, each in known if each.basis == basis)
        span = f"{batches[0]:,} to {batches[-1]:,}" if len(batches) > 1 else f"{batches[0]:,}"
        yield f"expected at batch {span}: {low:.2f} to {high:.2f} times the figure; {basis}"


def _remarks(found: enginebench.Ceilings, context: int, reach: float | None) -> Iterator[str]:
    if (first := found.prefill(context)) is not None:
        yield f"prefill of one prompt of {context:,} tokens: at least {duration(first.time_s)} ({first.bottleneck}, {first.arithmetic})"
    for knee in found.knees(context):
        yield f"from batch {knee.batch:,} the bottleneck is {knee.after} instead of {knee.before}"
    if found.all_touched:
        yield f"from batch {found.all_touched:,} a step reads 95 % of the experts, so more sequences add almost no expert traffic"
    if reach is not None:
        batch, likely = found.batch_for(reach, context), found.likely_batch_for(reach, context)
        usual = f"; with {found.routing} from {likely:,} on" if likely else f"; with {found.routing} at no batch"
        possible = f"possible from batch {batch:,} on{usual if found.mixture and batch != likely else ''}"
        yield f"{reach:,.0f} tok/s: {possible if batch else 'impossible at every batch'}"
