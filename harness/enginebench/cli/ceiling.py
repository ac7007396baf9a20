"""`bench ceiling`: how fast could it be at all, and what limits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enginebench.cli.shared import AS_JSON, Number, print_json, show, write_text
from enginebench.cli.subject import Subject, count, popularity, spread_json, subject, subject_options
from enginebench.errors import UserError

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.physics import Setting, Step

_EPILOG = """\b
Examples:
  bench ceiling llama4-scout --hardware 4xh100 --precision f16 --context 2k
  bench ceiling qwen3-30b-a3b --hardware h100 --routing zipf:1.0 --html ceiling.html
  bench ceiling llama4-scout --hardware 4xh100 --precision f16 --context 0 --reach 5100
  bench ceiling llama4-scout --hardware 1xrtx4090+128gb --precision q4_k_m --cpu-experts 37 --batch 1
"""


@click.command(epilog=_EPILOG)
@subject_options
@click.option(
    "--context",
    "contexts",
    type=count,
    metavar="TOKENS",
    multiple=True,
    default=("2k",),
    help="Tokens that each sequence holds; 0: no cache.",
)
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, help="Sequences in a step (repeatable).  [default: 1 to 1024]")
@click.option("--routing", default="even", show_default=True, help="even, zipf:EXPONENT, or a file of expert counts (bench routing).")
@click.option("--measured", "as_measured", is_flag=True, help="The bandwidth that a copy reached on such a device, where known.")
@click.option("--bandwidth", type=Number(min=0, min_open=True), metavar="GB/S", help="Per device, instead of the data sheet's.")
@click.option("--speculate", type=click.IntRange(1), metavar="N", help="Tokens drafted and checked in each step.")
@click.option("--acceptance", type=Number(0, 1), default=0.7, show_default=True, help="Of a drafted token.")
@click.option("--draft", metavar="MODEL", help="The model that drafts, in the same precision; none: drafting is free.")
@click.option("--reach", type=Number(min=0, min_open=True), metavar="TOK/S", help="From which batch is so much possible?")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write the curves as a page.")
@AS_JSON
def ceiling(contexts: Sequence[int], as_json: bool, html: Path | None, reach: float | None, **asked: Any) -> None:
    """Say how fast decoding and prefill could be at all, over batch and context: memory, arithmetic, links, and which one rules.

    MODEL is a name of the catalogue, a config.json, a folder of safetensors, a .gguf file, or random:...
    """
    from enginebench.physics.limits import BATCHES, curve

    about = subject(asked)
    setting = _setting(about, asked)
    for note in about.weights.notes:
        show(f"note: {note}")
    batches = sorted(set(asked["batches"])) or BATCHES
    curves = {context: curve(setting, context, batches) for context in contexts}
    if as_json:
        print_json(_json(about, setting, curves, reach))
    else:
        click.echo(f"{about.title}, {setting.machine.device.bandwidth / 1e9:,.0f} GB/s per device, {_routing(setting)}")
        for context, steps in curves.items():
            for line in (*_table(context, steps, _room(about, context)), *_remarks(setting, context, reach)):
                click.echo(line)
    if html is not None:
        from enginebench.physics.plot import page_of_batches

        write_text(html, page_of_batches(about.title, setting, curves, {context: _room(about, context) for context in contexts}))


def _setting(about: Subject, asked: dict[str, Any]) -> Setting:
    from enginebench.physics import Setting, Speculation, read_weights

    machine = about.machine.as_measured() if asked["as_measured"] else about.machine
    if asked["bandwidth"]:
        machine = machine.with_bandwidth(asked["bandwidth"] * 1e9)
    if asked["draft"] and not asked["speculate"]:
        raise UserError("--draft drafts nothing without --speculate N")
    setting = Setting(about.weights, machine, about.parallelism, about.kv_bits, popularity(asked["routing"], about.weights), about.offload)
    if not asked["speculate"]:
        return setting
    drafter = None
    if asked["draft"]:
        drafter = Setting(read_weights(asked["draft"], asked["precision"]), machine, replace(about.parallelism, ep=1), about.kv_bits)
    return replace(setting, speculation=Speculation(asked["speculate"], asked["acceptance"], drafter))


def _room(about: Subject, context: int) -> int:
    """Sequences of so many tokens that there is memory for."""
    from enginebench.physics import fit

    p, tokens = about.parallelism, min(max(1, context), about.weights.model.max_context)
    return fit(
        about.weights, about.machine, p, context=tokens, concurrency=1, kv_bits=about.kv_bits, offload=about.offload
    ).max_concurrency  # fmt: skip


def _routing(setting: Setting) -> str:
    return "dense" if setting.routing is None else setting.routing.source


def _table(context: int, steps: Sequence[Step], room: int) -> Iterator[str]:
    yield f"\ndecode, {context:,} tokens held by each sequence; at least, in ms"
    yield (
        f"{'batch':>7} {'tok/s':>10} {'per user':>9} {'step':>8} | {'weights':>8} {'experts':>8} {'KV cache':>8} {'host':>8} | "
        f"{'compute':>8} {'link':>8} | {'touched':>7}  rules"
    )
    for step in steps:
        memory = " ".join(f"{1e3 * step.memory[name]:8.3f}" for name in ("weights", "experts", "KV cache", "host"))
        touched = f"{step.touched:7.1f}" if step.touched is not None else f"{'-':>7}"
        full = "" if step.batch <= room else "  (no room)"
        yield (
            f"{step.batch:>7,} {step.tokens_per_s:>10,.0f} {step.tokens_per_s_user:>9,.1f} {1e3 * step.time_s:8.3f} | {memory} | "
            f"{1e3 * step.seconds['compute']:8.3f} {1e3 * step.seconds['link']:8.3f} | {touched}  {step.bottleneck}{full}"
        )


def _remarks(setting: Setting, context: int, reach: float | None) -> Iterator[str]:
    from enginebench.physics import all_touched, batch_needed, knees, prefill

    if context:
        first = prefill(setting, context)
        yield f"prefill of one prompt of {context:,} tokens: at least {1e3 * first.time_s:,.1f} ms ({first.bottleneck}, {first.arithmetic})"
    for knee in knees(setting, context):
        yield f"from batch {knee.batch:,} on {knee.after} rules in place of {knee.before}"
    whole = all_touched(setting)
    if whole:
        yield f"from batch {whole:,} on a step reads 95 % of the experts: more sequences make them no dearer"
    if reach is not None:
        batch = batch_needed(setting, reach, context)
        yield f"{reach:,.0f} tok/s: " + (f"possible from batch {batch:,} on" if batch else "impossible at every batch")


def _json(about: Subject, setting: Setting, curves: dict[int, list[Step]], reach: float | None) -> JSON:
    from enginebench.domain import plain
    from enginebench.physics import all_touched, batch_needed, knees, prefill

    return {
        "model": about.weights.model.name,
        "precision": about.weights.precision.name,
        "weights_source": about.weights.source,
        "hardware": about.machine.name,
        "bandwidth": setting.machine.device.bandwidth,
        "parallelism": spread_json(about.parallelism),
        "offload": plain(about.offload),
        "routing": _routing(setting),
        "speculation": _speculation(setting),
        "all_touched_from": all_touched(setting),
        "contexts": [
            {
                "context": context,
                "room": _room(about, context),
                "decode": [_step(step) for step in steps],
                "prefill": _step(prefill(setting, context)) if context else None,
                "knees": plain(knees(setting, context)),
                "reach": None if reach is None else {"tokens_per_s": reach, "batch": batch_needed(setting, reach, context)},
            }
            for context, steps in curves.items()
        ],
    }


def _speculation(setting: Setting) -> JSON:
    speculation = setting.speculation
    if speculation is None:
        return None
    drafter = speculation.drafter.weights.model.name if speculation.drafter else None
    return {"tokens": speculation.tokens, "acceptance": speculation.acceptance, "drafter": drafter}


def _step(step: Step) -> dict[str, JSON]:
    from enginebench.domain import plain_object

    derived = {"time_s": step.time_s, "tokens_per_s": step.tokens_per_s, "tokens_per_s_user": step.tokens_per_s_user}
    return {**plain_object(step), **derived, "limit": step.limit, "rules": step.bottleneck}
