"""`bench offload`: which experts or layers stay on a GPU that is too small for the model, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FILE_ONLY, KV_TYPES, POSITIVE, Number, count, expectation_options, print_json, show_notes, write
from enginebench.domain.formatting import printable
from enginebench.errors import Exit

ROWS = 12
"""Lines of the table between the first and the last split."""

_EPILOG = """\b
Examples:
  bench offload gpt-oss-120b --hardware rtx4090+128gb --context 8k
  bench offload llama4-scout --hardware rtx4090+96gb --precision q4_k_m --host-bandwidth 70 --html knee.html
  bench offload model.gguf --hardware rtx3090+64gb --concurrency 4 --routing zipf:1.0
\b
Exit code 1: it does not fit, even with all of it on the host.
"""


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.option("--hardware", required=True, metavar="DEVICE+HOSTgb", help="rtx4090+128gb: the GPU, and the host's memory.")
@click.option("--precision", help="q4_k_m, mxfp4, ...; default: as published, or the sizes in the file.")
@click.option("--kv", type=click.Choice(KV_TYPES), default="f16", help="Element type of the KV cache.")
@click.option("--host-bandwidth", "host_gb_s", type=POSITIVE, metavar="GB/S", help="Of the host's memory.  [default: 80]")
@click.option("--context", type=count, metavar="TOKENS", default="8k", help="Tokens of a sequence, prompt and output.")
@click.option("--concurrency", type=click.IntRange(1), default=1, help="Sequences at once.")
@click.option("--routing", default="even", help="even, zipf:EXPONENT, captured[:INPUT] (by bench routing), or a file of counts.")
@click.option("--reserve", "reserve_gib", type=Number(min=0), default=1.0, metavar="GIB", help="For the driver and llama.cpp's buffers.")
@click.option("--html", type=FILE_ONLY, help="Also write the curve as a page.")
@expectation_options
@AS_JSON
def offload(model: str, hardware: str, html: Path | None, as_json: bool, **asked: Any) -> int:
    """Show which experts (of a dense model: layers) stay on the GPU, with llama.cpp's flags and the possible tokens/s.

    MODEL is a name of the catalogue, a config.json, a folder of safetensors, a .gguf file, hf:ORG/NAME (only
    its config.json is fetched), or random:...
    """
    found = enginebench.offload(model, hardware, **asked)
    show_notes((*found.whole.weights.notes, *found.whole.machine.device.remarks))
    if as_json:
        print_json(found.to_dict())
    else:
        for line in (*_verdict(found), *_head(found), *_table(found)):
            click.echo(line)
    if html is not None:
        write(html, found.page())
    return Exit.OK if found.best else Exit.THRESHOLD


def _head(found: enginebench.OffloadCurve) -> Iterator[str]:
    whole = found.whole
    what = "first N layers" if found.splits[0].by_layer else "experts of the first N layers"
    yield f"{found.title} ({found.host.bandwidth / 1e9:.4g} GB/s)"
    yield f"{whole.concurrency} x {whole.context:,} tokens, KV cache in {whole.kv_bits:g} bits; N: the {what} are on the host"
    yield (f"{printable(found.popularity.source)}\n" if found.popularity else "")


def _table(found: enginebench.OffloadCurve) -> Iterator[str]:
    yield f"{'N':>4} {'GPU GB':>8} {'host GB':>8} {'left GB':>8} {'tok/s at most':>14} {'expected':>9}  bottleneck"
    shown = _shown(found)
    for each in (split for split in found.splits if split.layers in shown):
        budget = each.fit.budget
        mark = "" if each.fit.fits else "  (does not fit)"
        yield (
            f"{each.layers:>4} {each.device_bytes / 1e9:8.1f} {budget.host / 1e9:8.1f} {budget.left / 1e9:8.1f} "
            f"{each.step.tokens_per_s:14.1f} {_usual(each.expected):>9}  {each.step.bottleneck}{mark}"
        )


def _usual(expected: enginebench.Expected | None) -> str:
    return f"{expected.tokens_per_s:.1f}" if expected else "unknown"


def _shown(found: enginebench.OffloadCurve) -> set[int]:
    """The layers of the first and the last split, of the best and the knee with their neighbours, and of some between."""
    last = len(found.splits) - 1
    wanted = {round(i * last / ROWS) for i in range(ROWS + 1)}
    for each in (found.best, found.knee):
        wanted |= {each.layers - 1, each.layers, each.layers + 1} if each else set()
    return wanted


def _verdict(found: enginebench.OffloadCurve) -> Iterator[str]:
    best = found.best
    if best is None:
        yield f"It does not fit: {found.splits[-1].fit.why_not}.\n"
        return
    whole = found.splits[0].step.tokens_per_s
    yield (
        f"It fits with N = {best.layers}: at most {best.step.tokens_per_s:,.1f} tok/s, of {whole:,.1f} if all of it fitted the GPU."
        if best.layers
        else f"It fits the GPU: at most {best.step.tokens_per_s:,.1f} tok/s."
    )
    if usual := best.expected:
        yield f"Expected: about {usual.tokens_per_s:,.1f} tok/s ({usual.low:,.1f} to {usual.high:,.1f}; {usual.basis})."
    else:
        yield "What is usual is unknown, as no measurement of llama.cpp in such a case is known."
    if found.knee:
        yield f"From N = {found.knee.layers} the host's memory is the bottleneck, not the GPU."
    if found.hottest and best.layers:
        yield f"An engine that places experts one by one has {printable(found.hottest.text)}."
    yield f"  llama-server -m FILE.gguf {best.flags}"
    yield f"  in a scenario: options: {{{', '.join(f'{key}: {value}' for key, value in best.options.items())}}}\n"
