"""`bench fit`: does a model fit a machine, and what would fit."""

from __future__ import annotations

from collections.abc import Iterator

import click

import enginebench
from enginebench.cli.shared import AS_JSON, Number, count, expectation_options, model_options, print_json
from enginebench.domain.formatting import counted
from enginebench.errors import Exit

MOST = 12
"""Other machines that are shown."""

_EPILOG = """\b
Examples:
  bench fit llama4-scout --hardware 4xh100 --precision fp8 --context 32k --concurrency 64 --tp 4 --ep
  bench fit deepseek-r1 --hardware 8xh200 --attention-dp 8 --ep --concurrency 256 --context 8k
  bench fit llama4-scout --hardware 1xrtx4090+128gb --precision q4_k_m --context 8k
  bench fit model.gguf --hardware cpu
  bench fit hf:zai-org/GLM-4.5-Air --hardware 4xh200
\b
Exit code 1: it does not fit.
"""


@click.command(epilog=_EPILOG)
@model_options
@click.option("--context", type=count, metavar="TOKENS", default="4k", help="Tokens of a sequence, prompt and output: 4096, 32k.")
@click.option("--concurrency", type=click.IntRange(1), default=1, help="Sequences at once, over all replicas.")
@click.option("--reserve", type=Number(min=0), metavar="GIB", help="For driver, graphs, communication.  [default: 2.5; llama.cpp: 1]")
@click.option(
    "--chunk", type=click.IntRange(1), help="Tokens of prompts that go through the model at once.  [default: 8192; llama.cpp: 512]"
)
@expectation_options
@AS_JSON
def fit(
    model: enginebench.PlacedModel,
    context: int,
    concurrency: int,
    reserve: float | None,
    chunk: int | None,
    expectations: enginebench.Expectations | None,
    as_json: bool,
) -> int:
    """Show whether a model fits: weights, KV cache and working memory per device, what is left, and what would fit.

    MODEL is a name of the catalogue, a config.json, a folder of safetensors, a .gguf file, hf:ORG/NAME (only
    its config.json is fetched), or random:...
    """
    found = enginebench.fit(
        model, context=context, concurrency=concurrency, reserve_gib=reserve, chunk=chunk, expectations=expectations
    )  # fmt: skip
    if as_json:
        print_json(found.to_dict())
    else:
        asked = f"{model.title}, {concurrency} x {context:,} tokens, KV cache in {model.kv_bits:g} bits"
        for line in (*_verdict(found), asked, "", *_budget(found), *_offloads(found), *_others(found)):
            click.echo(line)
    return Exit.OK if found.fits else Exit.THRESHOLD


def _budget(found: enginebench.ModelFit) -> Iterator[str]:
    asked = found.fit
    budget, p = asked.budget, asked.parallelism
    stage = " of the fullest stage" if p.pp > 1 else ""
    yield f"per device{stage}, GB"
    for role, size in sorted(budget.weights.items(), key=lambda item: -item[1]):
        yield _line(role.value, size)
    yield _line("KV cache and state" if asked.weights.model.state_bytes else "KV cache", budget.cache)
    yield _line(f"activations ({asked.reserve.chunk:,} tokens of prompt at once; assumed)", budget.activations)
    yield _line("driver, graphs, communication (assumed)", budget.runtime)
    yield _line("left" if budget.left >= 0 else "missing", abs(budget.left)) + f" of {budget.usable / 1e9:.1f}"
    if budget.host:
        yield _line("on the host", budget.host)


def _line(what: str, size: float) -> str:
    return f"  {what:<58} {size / 1e9:9.2f}"


def _verdict(found: enginebench.ModelFit) -> Iterator[str]:
    asked = found.fit
    yield "It fits." if asked.fits else f"It does not fit: {asked.why_not}."
    if asked.max_context and asked.max_concurrency:
        streams, most = counted(asked.concurrency, "sequence"), counted(asked.max_concurrency, "sequence")
        yield f"At most {asked.max_context:,} tokens each for {streams}, or {most} of {asked.context:,} tokens."
    if found.bound is not None:
        yield _rate(found)
    yield ""


def _rate(found: enginebench.ModelFit) -> str:
    """What decoding reaches with these sequences."""
    most, usual = f"{found.bound:,.0f} tok/s at most", found.expected
    if usual is None:
        return f"Decoding: {most}; what is usual is unknown, as no measurement of such a case is known."
    return f"Decoding: about {usual.tokens_per_s:,.0f} tok/s ({usual.low:,.0f} to {usual.high:,.0f}; {usual.basis}), {most}."


def _others(found: enginebench.ModelFit) -> Iterator[str]:
    if found.smallest:
        yield "\nsmallest hardware of the catalogue that holds one replica of this (device memory, left per device, GB)"
    for each in found.smallest[:MOST]:
        machine = each.machine
        yield (
            f"  {machine.name:<30} {each.parallelism.text:<14} {machine.count * machine.device.memory / 1e9:7.0f} "
            f"{each.budget.left / 1e9:7.1f}"
        )
    if (more := len(found.smallest) - MOST) > 0:
        yield f"  and {more} more: --json"


def _offloads(found: enginebench.ModelFit) -> Iterator[str]:
    if found.with_host:
        yield "\nwith llama.cpp and the host's memory it fits (on the host, left on the device, GB; see bench offload)"
    for each in found.with_host:
        yield f"  {_option(each.offload):<24} {each.budget.host / 1e9:7.1f} {each.budget.left / 1e9:7.1f}"


def _option(offload: enginebench.Offload) -> str:
    if not offload.anything:
        return "all on the device"
    if offload.expert_layers:
        return f"--cpu-experts {offload.expert_layers}"
    return f"--gpu-experts {offload.kept}" if offload.kept is not None else f"--cpu-layers {offload.blocks}"
