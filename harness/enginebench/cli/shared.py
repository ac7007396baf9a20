"""What several verbs share: the arguments that name a scenario or a model, prices, adapters, output as JSON, shell completion."""

import functools
import math
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import click

import enginebench
from enginebench.domain import JSON, Runtime
from enginebench.domain.formatting import printable, printable_json
from enginebench.domain.repeats import Repeats
from enginebench.errors import UserError

Command: TypeAlias = Callable[..., object]
"""A verb, decorated or not."""


class Overrides(TypedDict):
    """What --only, --repeats, --hardware, --runtime and --adapter say: the keywords of `enginebench.plan`."""

    only: Sequence[str]
    repeats: Repeats | None
    hardware: str | None
    runtime: Runtime | None
    adapters: Sequence[Path]


def command_line(verb: str, scenario: str, overrides: Overrides) -> str:
    """`bench VERB SCENARIO` with the same overrides, for a shell."""
    given = [("--only", one) for one in overrides["only"]] + [("--adapter", str(file)) for file in overrides["adapters"]]
    single = {"--repeats": overrides["repeats"], "--hardware": overrides["hardware"], "--runtime": overrides["runtime"]}
    given += [(name, str(value)) for name, value in single.items() if value]
    return shlex.join(["bench", verb, scenario, *(word for option in given for word in option)])


class RepeatsType(click.IntRange):
    """A number from 1, or `auto`."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


class Number(click.FloatRange):
    """A finite number in a range. click's own type also accepts `nan` and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


RESULTS = Path("results")
KV_TYPES = ("bf16", "f16", "f32", "fp8", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
POSITIVE = Number(min=0, min_open=True)
FILE = click.Path(path_type=Path)
FILE_ONLY = click.Path(path_type=Path, dir_okay=False)
FACTS = click.option(
    "--set", "facts", multiple=True, metavar="FACT=VALUE",
    help="What another tool's file does not say of the server: engine=vllm, hardware=4xh100 (repeatable).",
)  # fmt: skip
ADAPTERS = click.option(
    "--adapter", "adapters", type=FILE, multiple=True, metavar="FILE", help="Also load this adapter, a file or a folder (repeatable)."
)
INDEX = click.option(
    "--index", metavar="URL",
    help="An index that a team shares: postgresql://USER@HOST/DATABASE.  [default: ENGINEBENCH_INDEX, or a file here]",
)  # fmt: skip
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print data as JSON on stdout.")


def _decorated(command: Command, *options: Callable[[Command], Command]) -> Command:
    """The command with these options, in the order in which its help shows them."""
    for option in reversed(options):
        command = option(command)
    return command


def scenario_options(command: Command) -> Command:
    """SCENARIO, and the options that override it, which the command receives as `overrides`."""

    @functools.wraps(command)
    def called(**given: Any) -> object:
        overrides = {name: given.pop(name) for name in Overrides.__annotations__}
        return command(**given, overrides=overrides)

    return _decorated(
        called,
        click.argument("scenario", shell_complete=_complete_scenario),
        click.option(
            "--only",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only the cells with this value, e.g. engine=vllm (repeatable; twice the same key: either).",
        ),
        click.option(
            "--repeats", type=RepeatsType(), help="Number of repeats instead of the scenario's, or auto: more where they can tell."
        ),
        click.option(
            "--hardware",
            metavar="HARDWARE",
            help="What it runs on, e.g. 4xh100, 1xrtx4090+96gb or name=box,memory=96gb,bandwidth=1800gb/s; any: fits anywhere.",
        ),
        click.option("--runtime", type=click.Choice(["process", "docker"]), help="Start every server this way, instead of the scenario's."),
        ADAPTERS,
    )


def price_options(command: Command) -> Command:
    """--prices and --price, which the command receives as `prices`: `Prices`, or None without either."""

    @functools.wraps(command)
    def called(prices: Path | None, price: Sequence[str], **given: Any) -> object:
        return command(**given, prices=None if prices is None and not price else enginebench.price_list(prices, price))

    return _decorated(
        called,
        click.option("--prices", type=FILE, metavar="FILE", help="Prices (YAML), for the cost of a million tokens."),
        click.option("--price", multiple=True, metavar="KEY=NUMBER", help="One price: h100.hour=2.50, electricity=0.30 (repeatable)."),
    )


_CALIBRATE = click.option(
    "--calibrate", type=FILE, multiple=True, metavar="RUN", help="Fit what is expected to this run, or to a folder of runs (repeatable)."
)


def expectation_options(command: Command) -> Command:
    """--calibrate, which the command receives as `expectations`: `Expectations`, or None without it."""

    @functools.wraps(command)
    def called(calibrate: Sequence[Path], **given: Any) -> object:
        return command(**given, expectations=enginebench.expectations(calibrate) if calibrate else None)

    return _decorated(called, _CALIBRATE)


def model_options(command: Command) -> Command:
    """A model in a precision on hardware, spread over devices, perhaps with an offload, which the command receives as `model`."""

    @functools.wraps(command)
    def called(cpu_experts: int, gpu_experts: int | None, cpu_layers: int, over_link: bool, **given: Any) -> object:
        names = (
            "model", "hardware", "precision", "kv", "tp", "pp", "dp_replicas", "attention_dp", "ep", "redundant_experts",
            "host_gb_s", "engine",
        )  # fmt: skip
        offload = enginebench.Offload(cpu_experts, gpu_experts, cpu_layers, over_link)
        model = enginebench.place(**{name: given.pop(name) for name in names}, offload=offload)
        show_notes(model.notes)
        return command(**given, model=model)

    return _decorated(
        called,
        click.argument("model"),
        click.option(
            "--hardware",
            required=True,
            metavar="NxDEVICE[+HOSTgb]",
            help="4xh100, 1xrtx4090+128gb, m3-ultra-256gb, cpu, or name=box,memory=96gb,bandwidth=1800gb/s.",
        ),
        click.option("--precision", help="fp8, f16, q4_k_m, ...; default: as published, or the sizes in the file."),
        click.option("--kv", type=click.Choice(KV_TYPES), default="f16", help="Element type of the KV cache."),
        click.option("--tp", type=click.IntRange(1), help="Ranks that share each layer; default: all devices."),
        click.option("--pp", type=click.IntRange(1), default=1, help="Pipeline stages."),
        click.option("--dp-replicas", type=click.IntRange(1), default=1, help="Full copies of the model."),
        click.option("--attention-dp", type=click.IntRange(1), default=1, help="Copies of the attention within tp."),
        click.option(
            "--ep", type=click.IntRange(0), is_flag=False, flag_value=0, metavar="[N]", help="Ranks that share experts; no N: tp."
        ),
        click.option(
            "--redundant-experts", type=click.IntRange(0), default=0, metavar="N", help="Copies of experts besides a layer's own."
        ),
        click.option("--host-bandwidth", "host_gb_s", type=POSITIVE, metavar="GB/S", help="Of the host's memory.  [default: 80]"),
        click.option("--cpu-experts", type=click.IntRange(0), default=0, metavar="N", help="Experts of the first N layers on the host."),
        click.option("--gpu-experts", type=click.IntRange(0), metavar="N", help="Only the N most popular experts of a layer on it."),
        click.option("--cpu-layers", type=click.IntRange(0), default=0, metavar="N", help="The first N layers on the host."),
        click.option("--engine", metavar="NAME", help="What runs it, e.g. vllm or llamacpp: for what is expected.  [default: any]"),
        click.option("--over-link", is_flag=True, help="Send the host's weights to the device instead of computing there."),
    )


def count(text: str | int) -> int:
    """A whole number, perhaps in units of 1,024: '4096', '32k', '1m'."""
    found = re.fullmatch(r"(\d+)([km]?)", str(text).strip(), re.IGNORECASE)
    if not found:
        raise UserError(f"invalid count '{text}'", advice="write for example 4096, 32k or 1m")
    return int(found[1]) * {"": 1, "k": 1024, "m": 1024**2}[found[2].lower()]


def show(text: str) -> None:
    """Print text from outside on stderr with control characters made visible, line by line."""
    click.echo("\n".join(printable(line) for line in text.split("\n")), err=True)


def show_notes(notes: Sequence[str]) -> None:
    """Print what the catalogue notes about a model on stderr."""
    for note in notes:
        show(f"note: {note}")


def write(file: Path, text: str) -> None:
    """Write a whole file and say so on stderr."""
    from enginebench.report.run import write_text

    write_text(file, text)
    click.echo(f"wrote {file}", err=True)


def json_text(data: JSON) -> str:
    """Data as JSON, indented."""
    import orjson

    return f"{printable_json(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())}\n"


def print_json(data: JSON) -> None:
    """Print data on stdout, indented."""
    click.echo(json_text(data), nl=False)


def _complete_scenario(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    here = [str(p) for p in Path(incomplete).parent.glob("*.y*ml")] if "/" in incomplete else [p.name for p in Path().glob("*.y*ml")]
    return [name for name in [*enginebench.built_in_scenarios(), *here] if name.startswith(incomplete)]


@click.command(epilog='\b\nExamples:\n  eval "$(bench completion bash)"\n  bench completion fish > ~/.config/fish/completions/bench.fish')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for your shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise UserError(f"no completion for {shell}")
    click.echo(found(context.find_root().command, {}, "bench", "_BENCH_COMPLETE").source())


class ReadingRuns:
    """Says on stderr how far it is, once a second, if it takes that long."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, every: int) -> None:
        now = time.monotonic()
        if now - self._last > 1.0:
            self._last = now
            left = (now - self._began) / max(done, 1) * (every - done)
            end = "\r" if sys.stderr.isatty() else "\n"
            click.echo(f"read {done:,} of {every:,} new or changed runs, about {left:.0f} s left   ", err=True, nl=False)
            click.echo(end, err=True, nl=False)
