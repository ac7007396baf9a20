"""What `bench fit` and `bench ceiling` ask about: a model in a precision on a machine, spread, with a KV cache and perhaps an offload."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from enginebench.cli.shared import Number
from enginebench.errors import UserError

if TYPE_CHECKING:
    from enginebench.domain import JSON, Parallelism
    from enginebench.physics import Machine, Offload, Popularity, Weights

F = TypeVar("F", bound=Callable[..., object])

KV_TYPES = ("bf16", "f16", "f32", "fp8", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
_NUMBER = re.compile(r"(\d+)([km]?)", re.IGNORECASE)


def count(text: str | int) -> int:
    """A whole number, perhaps in units of 1,024: '4096', '32k', '1m'."""
    found = _NUMBER.fullmatch(str(text).strip())
    if not found:
        raise UserError(f"'{text}' is no count", advice="write for example 4096, 32k or 1m")
    return int(found[1]) * {"": 1, "k": 1024, "m": 1024**2}[found[2].lower()]


@dataclass(frozen=True)
class Subject:
    """Everything that both verbs need."""

    weights: Weights
    machine: Machine
    parallelism: Parallelism
    kv_bits: float
    offload: Offload

    @property
    def title(self) -> str:
        """'llama4-scout in fp8 (107.8 billion weights, 17.2 active), 4x h100-sxm-80gb, tp=4 ep=4'."""
        model = self.weights.model
        counted = f"{model.params / 1e9:.4g} billion weights, {model.active('both') / 1e9:.3g} active, {self.weights.bytes / 1e9:.4g} GB"
        return f"{model.name} in {self.weights.precision.name} ({counted}), {self.machine.name}, {spread_text(self.parallelism)}"


def spread_text(parallelism: Parallelism) -> str:
    """'tp=4 ep=4': what is more than one; 'one device' where nothing is."""
    from dataclasses import asdict

    return " ".join(f"{name}={value}" for name, value in asdict(parallelism).items() if value > 1) or "one device"


def spread_json(parallelism: Parallelism) -> JSON:
    """The five numbers."""
    from enginebench.domain import plain

    return plain(parallelism)


_OPTIONS = (
    click.argument("model"),
    click.option("--hardware", required=True, metavar="NxDEVICE[+HOSTgb]", help="4xh100, 1xrtx4090+128gb, m3-ultra-256gb, cpu (measured)."),
    click.option("--precision", help="fp8, f16, q4_k_m, ...; default: as published, or the real sizes in a file."),
    click.option("--kv", type=click.Choice(KV_TYPES), default="f16", show_default=True, help="Elements of the KV cache."),
    click.option("--tp", type=click.IntRange(1), help="Ranks that share each layer; default: all devices."),
    click.option("--pp", type=click.IntRange(1), default=1, show_default=True, help="Pipeline stages."),
    click.option("--dp-replicas", type=click.IntRange(1), default=1, show_default=True, help="Whole copies."),
    click.option("--attention-dp", type=click.IntRange(1), default=1, show_default=True, help="Attention copied within tp."),
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
    """The arguments of both verbs."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def subject(asked: dict[str, Any]) -> Subject:
    """What the options of `subject_options` name. UserError where there is no such thing."""
    from enginebench.physics import Offload, choose_parallelism, read_machine, read_weights
    from enginebench.physics.placement import KV_BITS

    bandwidth = asked["host_bandwidth"]
    machine = read_machine(asked["hardware"], host_bandwidth=bandwidth * 1e9 if bandwidth else None)
    parallelism = choose_parallelism(
        machine.count,
        tp=asked["tp"],
        pp=asked["pp"],
        dp_replicas=asked["dp_replicas"],
        attention_dp=asked["attention_dp"],
        ep=asked["ep"],
    )
    offload = Offload(asked["cpu_experts"], asked["gpu_experts"], asked["cpu_layers"], asked["over_link"])
    return Subject(read_weights(asked["model"], asked["precision"]), machine, parallelism, KV_BITS[asked["kv"]], offload)


def popularity(text: str, weights: Weights) -> Popularity | None:
    """'even', 'zipf:1.1', or a file of expert counts. None: even routing, or a dense model."""
    from enginebench.physics import measured, zipf
    from enginebench.physics.routing_files import read

    experts = weights.model.experts
    if text == "even" or experts is None:
        return None
    if text.startswith("zipf:"):
        try:
            return zipf(experts.count, experts.top_k, float(text.removeprefix("zipf:")))
        except ValueError:
            raise UserError(f"--routing {text}: no exponent", advice="write for example zipf:1.0") from None
    if not Path(text).is_file():
        raise UserError(f"--routing {text}: no such file", advice="write even, zipf:EXPONENT, or a file that bench routing kept")
    found = read(Path(text))
    if found.experts != experts.count:
        raise UserError(f"{text} counts {found.experts} experts, {weights.model.name} has {experts.count}", key="routing")
    return measured(found, experts.top_k)
