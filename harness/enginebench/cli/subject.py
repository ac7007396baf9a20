"""The arguments of `bench fit` and `bench ceiling`: a model in a precision on hardware, spread over devices, perhaps with an offload."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

import enginebench
from enginebench.cli.shared import Number
from enginebench.errors import UserError

if TYPE_CHECKING:
    from enginebench import PlacedModel

F = TypeVar("F", bound=Callable[..., object])

KV_TYPES = ("bf16", "f16", "f32", "fp8", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
_NUMBER = re.compile(r"(\d+)([km]?)", re.IGNORECASE)


def count(text: str | int) -> int:
    """A whole number, perhaps in units of 1,024: '4096', '32k', '1m'."""
    found = _NUMBER.fullmatch(str(text).strip())
    if not found:
        raise UserError(f"invalid count '{text}'", advice="write for example 4096, 32k or 1m")
    return int(found[1]) * {"": 1, "k": 1024, "m": 1024**2}[found[2].lower()]


_OPTIONS = (
    click.argument("model"),
    click.option("--hardware", required=True, metavar="NxDEVICE[+HOSTgb]", help="4xh100, 1xrtx4090+128gb, m3-ultra-256gb, cpu (measured)."),
    click.option("--precision", help="fp8, f16, q4_k_m, ...; default: as published, or the sizes in the file."),
    click.option("--kv", type=click.Choice(KV_TYPES), default="f16", show_default=True, help="Element type of the KV cache."),
    click.option("--tp", type=click.IntRange(1), help="Ranks that share each layer; default: all devices."),
    click.option("--pp", type=click.IntRange(1), default=1, show_default=True, help="Pipeline stages."),
    click.option("--dp-replicas", type=click.IntRange(1), default=1, show_default=True, help="Full copies of the model."),
    click.option("--attention-dp", type=click.IntRange(1), default=1, show_default=True, help="Copies of the attention within tp."),
    click.option(
        "--ep",
        type=click.IntRange(0),
        is_flag=False,
        flag_value=0,
        metavar="[N]",
        help="Ranks that share the experts; without N, all of tp.",
    ),
    click.option("--host-bandwidth", type=Number(min=0, min_open=True), metavar="GB/S", help="Of the host's memory.  [default: 80]"),
    click.option("--cpu-experts", type=click.IntRange(0), default=0, metavar="N", help="Experts of the first N layers on the host."),
    click.option("--gpu-experts", type=click.IntRange(0), metavar="N", help="Only the N most popular experts of a layer on the device."),
    click.option("--cpu-layers", type=click.IntRange(0), default=0, metavar="N", help="The first N layers on the host."),
    click.option("--over-link", is_flag=True, help="Send the host's weights to the device instead of computing there."),
)


def subject_options(command: F) -> F:
    """The arguments of both verbs, for `placed`."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def placed(
    *, cpu_experts: int, gpu_experts: int | None, cpu_layers: int, over_link: bool, host_bandwidth: float | None, **given: Any
) -> PlacedModel:
    """The model that the options of `subject_options` name."""
    offload = enginebench.Offload(cpu_experts, gpu_experts, cpu_layers, over_link)
    return enginebench.place(**given, offload=offload, host_gb_s=host_bandwidth)
