"""`bench fit`: does a model fit a machine, and what would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from enginebench.cli.shared import AS_JSON, Number, print_json, show
from enginebench.cli.subject import count, spread_json, spread_text, subject, subject_options
from enginebench.errors import Exit

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.physics import Fit, Offload

_EPILOG = """\b
Examples:
  bench fit llama4-scout --hardware 4xh100 --precision fp8 --context 32k --concurrency 64 --tp 4 --ep
  bench fit deepseek-r1 --hardware 8xh200 --attention-dp 8 --ep --concurrency 256 --context 8k
  bench fit llama4-scout --hardware 1xrtx4090+128gb --precision q4_k_m --context 8k
  bench fit model.gguf --hardware cpu
\b
Exit code 1: it does not fit.
"""


@click.command(epilog=_EPILOG)
@subject_options
@click.option(
    "--context", type=count, metavar="TOKENS", default="4k", show_default=True, help="Tokens of a sequence, prompt and output: 4096, 32k."
)
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Sequences at once, over all replicas.")
@click.option("--reserve", type=Number(min=0), default=2.5, show_default=True, metavar="GIB", help="For driver, graphs, communication.")
@click.option(
    "--chunk", type=click.IntRange(1), default=8192, show_default=True, help="Tokens of prompts that go through the model at once."
)
@AS_JSON
def fit(context: int, concurrency: int, reserve: float, chunk: int, as_json: bool, **asked: Any) -> int:
    """Say whether a model fits: weights, KV cache and working memory per device, what is left, and what would fit.

    MODEL is a name of the catalogue, a config.json, a folder of safetensors, a .gguf file, or random:...
    """
    from enginebench.physics import Reserve, devices, most_on_device, smallest
    from enginebench.physics import fit as ask
    from enginebench.physics.machine import GIB

    about = subject(asked)
    answer = ask(
        about.weights,
        about.machine,
        about.parallelism,
        context=context,
        concurrency=concurrency,
        kv_bits=about.kv_bits,
        reserve=Reserve(reserve * GIB, chunk),
        offload=about.offload,
    )
    others, offloads = smallest(answer, devices().values()), most_on_device(answer)
    for note in about.weights.notes:
        show(f"note: {note}")
    if as_json:
        print_json(_json(answer, others, offloads))
    else:
        click.echo(f"{about.title}, {concurrency} x {context:,} tokens, KV cache in {about.kv_bits:g} bits\n")
        for line in (*_budget(answer), *_verdict(answer), *_others(others), *_offloads(offloads)):
            click.echo(line)
    return Exit.OK if answer.fits else Exit.THRESHOLD


def _budget(answer: Fit) -> Iterator[str]:
    budget, p = answer.budget, answer.parallelism
    stage = " of the fullest stage" if p.pp > 1 else ""
    yield f"per device{stage}, GB"
    for role, size in sorted(budget.weights.items(), key=lambda item: -item[1]):
        yield _line(role.value, size)
    yield _line("KV cache", budget.cache)
    yield _line(f"activations ({answer.reserve.chunk:,} tokens of prompt at once; assumed)", budget.activations)
    yield _line("driver, graphs, communication (assumed)", budget.runtime)
    yield _line("left" if budget.left >= 0 else "missing", abs(budget.left)) + f" of {budget.usable / 1e9:.1f}"
    if budget.host:
        yield _line("on the host", budget.host)


def _line(what: str, size: float) -> str:
    return f"  {what:<58} {size / 1e9:9.2f}"


def _verdict(answer: Fit) -> Iterator[str]:
    yield ""
    yield "It fits." if answer.fits else f"It does not fit: {answer.why_not}."
    if answer.max_context and answer.max_concurrency:
        yield (
            f"At most {answer.max_context:,} tokens each for {answer.concurrency} sequences, or {answer.max_concurrency:,} sequences of "
            f"{answer.context:,} tokens."
        )


def _others(others: Sequence[Fit]) -> Iterator[str]:
    if others:
        yield "\nsmallest hardware of the catalogue that holds one replica of this (device memory, left per device, GB)"
    for each in others:
        machine = each.machine
        yield (
            f"  {machine.name:<24} {spread_text(each.parallelism):<14} {machine.count * machine.device.memory / 1e9:7.0f} "
            f"{each.budget.left / 1e9:7.1f}"
        )


def _offloads(offloads: Sequence[Fit]) -> Iterator[str]:
    if offloads:
        yield "\nwith the host's memory it fits (on the host, left on the device, GB; speeds and llama.cpp's flags: bench offload)"
    for each in offloads:
        yield f"  {_option(each.offload):<24} {each.budget.host / 1e9:7.1f} {each.budget.left / 1e9:7.1f}"


def _option(offload: Offload) -> str:
    if offload.expert_layers:
        return f"--cpu-experts {offload.expert_layers}"
    return f"--gpu-experts {offload.kept}" if offload.kept is not None else f"--cpu-layers {offload.blocks}"


def _json(answer: Fit, others: Sequence[Fit], offloads: Sequence[Fit]) -> JSON:
    from enginebench.domain import plain

    return {
        **_one(answer),
        "model": answer.weights.model.name,
        "precision": answer.weights.precision.name,
        "params": answer.weights.model.params,
        "active": answer.weights.model.active("both"),
        "weights_source": answer.weights.source,
        "context": answer.context,
        "concurrency": answer.concurrency,
        "kv_bits": answer.kv_bits,
        "reserve": plain(answer.reserve),
        "smallest": [_one(each) for each in others],
        "with_host": [{**_one(each), "offload": plain(each.offload)} for each in offloads],
    }


def _one(answer: Fit) -> dict[str, JSON]:
    budget = answer.budget
    return {
        "hardware": answer.machine.name,
        "parallelism": spread_json(answer.parallelism),
        "fits": answer.fits,
        "why_not": answer.why_not,
        "weights_bytes": {role.value: size for role, size in budget.weights.items()},
        "cache_bytes": budget.cache,
        "activations_bytes": budget.activations,
        "runtime_bytes": budget.runtime,
        "usable_bytes": budget.usable,
        "left_bytes": budget.left,
        "host_bytes": budget.host,
        "max_context": answer.max_context,
        "max_concurrency": answer.max_concurrency,
    }
