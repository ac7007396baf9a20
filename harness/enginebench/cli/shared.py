"""What several verbs share: the scenario argument, the adapter option, output as JSON, shell completion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from enginebench.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from enginebench.adapter import Adapter, Install
    from enginebench.domain import JSON, Runtime
    from enginebench.engines.environments import Pins
    from enginebench.engines.registry import Registry
    from enginebench.metrics.costs import Prices
    from enginebench.physics.deployment_limits import MachineLimits
    from enginebench.scenario import Scenario
    from enginebench.scenario.plan import Plan

F = TypeVar("F", bound=Callable[..., object])


class Number(click.FloatRange):
    """A number in a range; `nan` and `inf`, which compare like numbers and then spread through every figure, are none."""

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


def scenario_options(command: F) -> F:
    """The arguments of every verb that takes a scenario: SCENARIO, --only, --repeats, --hardware, --runtime, --adapter."""
    for decorate in (
        ADAPTERS,
        click.option("--runtime", type=click.Choice(["process", "docker"]), help="Start every server in this way, whichever is written."),
        click.option(
            "--hardware", metavar="HARDWARE", help="What it runs on, e.g. 4xh100 or 1xrtx4090+96gb, for what fits; any: check nothing."
        ),
        click.option("--repeats", type=click.IntRange(min=1), help="Use this number of repeats instead of the scenario's."),
        click.option(
            "--only",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only the cells with this value, e.g. engine=vllm (repeatable; twice the same key: either).",
        ),
        click.argument("scenario", shell_complete=_complete_scenario),
    ):
        command = decorate(command)
    return command


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
    """The prices that a file and flags give, by the catalogue's names of the devices; None where neither is given."""
    from enginebench.metrics.costs import Prices, by_catalogue, read_prices, with_flags

    if file is None and not flags:
        return None
    return by_catalogue(with_flags(read_prices(file) if file is not None else Prices(), flags))


def planned(
    scenario: str,
    only: Sequence[str],
    repeats: int | None,
    adapters: Sequence[Path],
    runtime: Runtime | None = None,
    hardware: str | None = None,
) -> tuple[Plan, Registry]:
    """Read, check and expand a scenario named on the command line, and hold it against the hardware it names or the GPUs that are here."""
    from dataclasses import replace

    from enginebench.engines.registry import discover
    from enginebench.scenario import load_scenario
    from enginebench.scenario.plan import plan

    registry = discover(adapters)
    loaded = load_scenario(find_scenario(scenario), registry, runtime=runtime)
    if repeats is not None:
        loaded = replace(loaded, repeats=repeats)
    if hardware is not None:
        loaded = replace(loaded, hardware=hardware)
    whole = plan(loaded, registry, _bounds(loaded))
    selection = _selection(only)
    for key, values in selection.items():
        for value in sorted(values - (known := whole.values(key))):
            raise UserError(f"--only {key}={value}: no cell has that", advice=did_you_mean(value, known))
    selected = whole.only(selection) if only else whole
    if not selected.cells:
        raise UserError(
            f"--only {' '.join(only)} leaves no cell of {len(whole.cells)}", advice="see the values with: bench plan " + scenario
        )
    return selected, registry


def _bounds(scenario: Scenario) -> MachineLimits | None:
    """What the machine allows; None where nobody said which it is and no GPU is here, or its processor does the work."""
    from enginebench.machine.accelerators import gpus

    seen = () if scenario.hardware else gpus()
    if not scenario.hardware and not seen:
        return None
    from enginebench.physics.deployment_limits import MachineLimits
    from enginebench.physics.detect import local_machine, stated_machine

    machine = stated_machine(scenario.hardware) if scenario.hardware else local_machine(seen)
    return MachineLimits(machine, scenario.file.resolve().parent) if machine is not None else None


def find_scenario(name: str) -> Path:
    """A scenario file by its path, or a built-in one by its name."""
    from enginebench.machine.folders import resource_dir

    path = Path(name)
    if path.exists():
        return path
    built_in = {file.stem: file for file in resource_dir("scenarios").glob("*.yaml")}
    stem = path.stem if path.parent in (Path(), Path("scenarios")) else ""
    if stem in built_in:
        return built_in[stem]
    raise UserError("there is no such file, nor a built-in scenario of that name", file=path, advice=did_you_mean(stem or name, built_in))


def _selection(only: Sequence[str]) -> dict[str, frozenset[str]]:
    """'--only KEY=VALUE' as the values wanted for each key; the same key twice means either."""
    from enginebench.scenario.plan import SELECTABLE

    chosen: dict[str, frozenset[str]] = {}
    for item in only:
        key, equals, value = item.partition("=")
        if not equals or key not in SELECTABLE:
            raise UserError(f"--only {item}: expected KEY=VALUE", advice=did_you_mean(key, SELECTABLE))
        chosen[key] = chosen.get(key, frozenset()) | {value}
    return chosen


@cache
def _python_of(environment: str, pins: Pins) -> Path | None:
    from enginebench.engines.environments import python_of

    return python_of(environment, pins)


def installs_of(adapter: Adapter) -> Sequence[Install]:
    """Every way an engine is present on this machine."""
    from enginebench.engines.registry import environments

    made = [_python_of(name, pins) for name, pins in environments(adapter).items()]
    pythons: Sequence[Path | None] = [python for python in made if python is not None] or [None]
    return list(dict.fromkeys(install for python in pythons for install in adapter.find(python)))


def show(text: str) -> None:
    """Text from outside on stderr: control characters made visible, line by line."""
    from enginebench.domain.text import printable

    click.echo("\n".join(printable(line) for line in text.split("\n")), err=True)


def write_text(file: Path, text: str) -> None:
    """A whole file or none, and a line that says so on stderr. UserError where it cannot be written."""
    from enginebench.records.store import write_atomically

    try:
        if file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")  # a pipe or a terminal cannot be replaced by a finished file
        else:
            write_atomically(file, text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", file=file, advice="the folder must exist and be writable") from None
    click.echo(f"wrote {file}", err=True)


def print_json(data: JSON) -> None:
    """Data on stdout, indented."""
    import orjson

    click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def _complete_scenario(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from enginebench.machine.folders import resource_dir

    here = [str(p) for p in Path(incomplete).parent.glob("*.y*ml")] if "/" in incomplete else [p.name for p in Path().glob("*.y*ml")]
    return [name for name in [*sorted(f.stem for f in resource_dir("scenarios").glob("*.yaml")), *here] if name.startswith(incomplete)]


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
