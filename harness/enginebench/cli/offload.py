"""`bench offload`: which experts or layers stay on a card that is too small for the model, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enginebench.cli.shared import AS_JSON, Number, print_json, show, write_text
from enginebench.cli.subject import KV_TYPES, count, popularity
from enginebench.errors import Exit, UserError

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.physics import Fit
    from enginebench.physics.advisor import Split

ROWS = 12
"""Lines of the table between the first and the last split."""

_EPILOG = """\b
Examples:
  bench offload gpt-oss-120b --hardware rtx4090+128gb --context 8k
  bench offload llama4-scout --hardware rtx4090+96gb --precision q4_k_m --host-bandwidth 70 --html knee.html
  bench offload model.gguf --hardware rtx3090+64gb --concurrency 4 --routing zipf:1.0
\b
Exit code 1: it does not fit, whatever lies on the host.
"""


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.option("--hardware", required=True, metavar="DEVICE+HOSTgb", help="rtx4090+128gb: the card, and the host's memory.")
@click.option("--precision", help="q4_k_m, mxfp4, ...; default: as published, or the real sizes in a file.")
@click.option("--kv", type=click.Choice(KV_TYPES), default="f16", show_default=True, help="Elements of the KV cache.")
@click.option("--host-bandwidth", type=Number(min=0, min_open=True), metavar="GB/S", help="Of the host's memory.  [default: 80]")
@click.option("--context", type=count, metavar="TOKENS", default="8k", show_default=True, help="Tokens of a sequence, prompt and output.")
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Sequences at once.")
@click.option("--routing", default="even", show_default=True, help="even, zipf:EXPONENT, or a file of expert counts (bench routing).")
@click.option(
    "--reserve", type=Number(min=0), default=1.0, show_default=True, metavar="GIB", help="For the driver and llama.cpp's buffers."
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write the curve as a page.")
@AS_JSON
def offload(routing: str, html: Path | None, as_json: bool, **asked: Any) -> int:
    """Say which experts (of a dense model: layers) stay on the card, with llama.cpp's flags and the tokens/s that are possible.

    MODEL is a name of the catalogue, a config.json, a folder of safetensors, a .gguf file, or random:...
    """
    from enginebench.physics.advisor import plan, splits

    whole = _on_the_card(asked)
    weights, curve = whole.weights, splits(whole, popularity(routing, whole.weights))
    for note in weights.notes:
        show(f"note: {note}")
    title = f"{weights.model.name} in {weights.precision.name}, {weights.bytes / 1e9:.4g} GB, on {whole.machine.name}"
    if as_json:
        print_json(_json(whole, curve))
    else:
        for line in (*_head(title, whole), *_table(curve), *_verdict(curve)):
            click.echo(line)
    if html is not None:
        from enginebench.physics.plot import page_of_splits

        write_text(html, page_of_splits(title, curve))
    return Exit.OK if plan(curve) else Exit.THRESHOLD


def _on_the_card(asked: dict[str, Any]) -> Fit:
    """Everything on the card, where it may not fit."""
    from enginebench.domain import Parallelism
    from enginebench.engines.registry import discover
    from enginebench.physics import fit, read_machine, read_weights
    from enginebench.physics.advisor import LLAMACPP
    from enginebench.physics.machine import GIB
    from enginebench.physics.placement import KV_BITS

    hardware, bandwidth = asked["hardware"], asked["host_bandwidth"]
    machine = read_machine(hardware, host_bandwidth=bandwidth * 1e9 if bandwidth else None)
    if machine.host is None:
        raise UserError(f"--hardware {hardware} names no memory beside the card", advice=f"write for example {hardware}+128gb")
    if machine.count != 1:
        raise UserError(
            f"--hardware {hardware}: the split over several cards is not reckoned here", advice="name one card, or ask bench fit --pp"
        )
    weights = read_weights(asked["model"], asked["precision"])
    known = discover()["llamacpp"].precisions
    if known is not None and weights.precision.name not in known:
        raise UserError(f"llama.cpp has no {weights.precision.name}", key="precision", advice="name one of its own: --precision q4_k_m")
    return fit(
        weights,
        machine,
        Parallelism(),
        context=asked["context"],
        concurrency=asked["concurrency"],
        kv_bits=KV_BITS[asked["kv"]],
        reserve=replace(LLAMACPP, runtime=asked["reserve"] * GIB),
    )


def _head(title: str, whole: Fit) -> Iterator[str]:
    host = whole.machine.host
    assert host is not None  # noqa: S101  # _on_the_card refused
    what = "experts of the first N layers" if whole.weights.model.experts else "first N layers"
    yield f"{title} ({host.bandwidth / 1e9:.4g} GB/s)"
    yield f"{whole.concurrency} x {whole.context:,} tokens, KV cache in {whole.kv_bits:g} bits; N: the {what} are on the host\n"


def _table(curve: Sequence[Split]) -> Iterator[str]:
    yield f"{'N':>4} {'card GB':>8} {'host GB':>8} {'left GB':>8} {'tok/s at most':>14}  rules"
    for each in _shown(curve):
        budget = each.fit.budget
        mark = "" if each.fit.fits else "  (does not fit)"
        yield (
            f"{each.layers:>4} {each.device_bytes / 1e9:8.1f} {budget.host / 1e9:8.1f} {budget.left / 1e9:8.1f} "
            f"{each.step.tokens_per_s:14.1f}  {each.step.bottleneck}{mark}"
        )


def _shown(curve: Sequence[Split]) -> list[Split]:
    """The first and the last, what is decided on with its neighbours, and some between."""
    from enginebench.physics.advisor import knee, plan

    last = len(curve) - 1
    wanted = {round(i * last / ROWS) for i in range(ROWS + 1)}
    for found in (plan(curve), knee(curve)):
        wanted |= {found.layers - 1, found.layers, found.layers + 1} if found else set()
    return [each for each in curve if each.layers in wanted]


def _verdict(curve: Sequence[Split]) -> Iterator[str]:
    from enginebench.physics.advisor import knee, plan

    best, bent = plan(curve), knee(curve)
    yield ""
    if best is None:
        yield f"It does not fit: {curve[-1].fit.why_not}."
        return
    whole = curve[0].step.tokens_per_s
    yield f"N = {best.layers}: at most {best.step.tokens_per_s:,.1f} tok/s, of {whole:,.1f} if all of it fitted the card."
    if bent:
        yield f"From N = {bent.layers} on the host's memory takes longer than the card."
    yield f"  llama-server -m FILE.gguf {best.flags}"
    yield f"  in a scenario: options: {{{', '.join(f'{key}: {value}' for key, value in best.options.items())}}}"


def _json(whole: Fit, curve: Sequence[Split]) -> JSON:
    from enginebench.physics.advisor import knee, plan

    best, bent, host = plan(curve), knee(curve), whole.machine.host
    return {
        "model": whole.weights.model.name,
        "precision": whole.weights.precision.name,
        "weights_source": whole.weights.source,
        "hardware": whole.machine.name,
        "host_bandwidth": host.bandwidth if host else None,
        "context": whole.context,
        "concurrency": whole.concurrency,
        "kv_bits": whole.kv_bits,
        "plan": best.layers if best else None,
        "knee": bent.layers if bent else None,
        "curve": [_point(each) for each in curve],
    }


def _point(each: Split) -> JSON:
    return {
        "layers": each.layers,
        "fits": each.fit.fits,
        "why_not": each.fit.why_not,
        "device_bytes": each.device_bytes,
        "host_bytes": each.fit.budget.host,
        "left_bytes": each.fit.budget.left,
        "tokens_per_s": each.step.tokens_per_s,
        "rules": each.step.bottleneck,
        "options": dict(each.options),
        "flags": each.flags,
    }
