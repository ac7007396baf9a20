"""What several verbs share: the scenario argument with its overrides, prices, adapters, output as JSON, shell completion."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

import enginebench
from enginebench.domain.formatting import printable
from enginebench.errors import UserError

if TYPE_CHECKING:
    from enginebench import Prices
    from enginebench.domain import JSON, Runtime

F = TypeVar("F", bound=Callable[..., object])


class Overrides(TypedDict):
    """What --only, --repeats, --hardware, --runtime and --adapter say: the keywords of `enginebench.plan`."""

    only: Sequence[str]
    repeats: int | None
    hardware: str | None
    runtime: Runtime | None
    adapters: Sequence[Path]


class Number(click.FloatRange):
    """A finite number in a range. click's own type also accepts `nan` and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


RESULTS = Path("results")
ADAPTERS = click.option(
    "--adapter",
    "adapters",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Also load this adapter file (repeatable).",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print data as JSON on stdout.")


def scenario_options(command: Callable[..., object]) -> Callable[..., object]:
    """SCENARIO, and the options that override it, which the command receives as `overrides`."""

    @functools.wraps(command)
    def called(**given: Any) -> object:
        overrides = {name: given.pop(name) for name in Overrides.__annotations__}
        return command(**given, overrides=overrides)

    decorated: Callable[..., object] = called
    for decorate in (
        ADAPTERS,
        click.option("--runtime", type=click.Choice(["process", "docker"]), help="Start every server this way, instead of the scenario's."),
        click.option(
            "--hardware", metavar="HARDWARE", help="What it runs on, e.g. 4xh100 or 1xrtx4090+96gb, for what fits; any: check nothing."
        ),
        click.option("--repeats", type=click.IntRange(min=1), help="Number of repeats, instead of the scenario's."),
        click.option(
            "--only",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only the cells with this value, e.g. engine=vllm (repeatable; twice the same key: either).",
        ),
        click.argument("scenario", shell_complete=_complete_scenario),
    ):
        decorated = decorate(decorated)
    return decorated


def price_options(command: F) -> F:
    """--prices and --price, for `prices_of`."""
    for decorate in (
        click.option(
            "--price", "flags", multiple=True, metavar="KEY=NUMBER", help="One price, e.g. h100.hour=2.50 or electricity=0.30 (repeatable)."
        ),
        click.option("--prices", type=click.Path(path_type=Path), metavar="FILE", help="Prices (YAML), for the cost of a million tokens."),
    ):
        command = decorate(command)
    return command


def prices_of(file: Path | None, flags: Sequence[str]) -> Prices | None:
    """The prices that --prices and --price give; None without either."""
    return None if file is None and not flags else enginebench.price_list(file, flags)


def show(text: str) -> None:
    """Print text from outside on stderr with control characters made visible, line by line."""
    click.echo("\n".join(printable(line) for line in text.split("\n")), err=True)


def show_notes(notes: Sequence[str]) -> None:
    """Print what the catalogue notes about a model on stderr."""
    for note in notes:
        show(f"note: {note}")


def write(file: Path, text: str) -> None:
    """Write a whole file and say so on stderr."""
    from enginebench.report.files import write_text

    write_text(file, text)
    click.echo(f"wrote {file}", err=True)


def print_json(data: JSON) -> None:
    """Print data on stdout, indented."""
    import orjson

    click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


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
