"""Which engines are installed on this machine, and installing them. Prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from enginebench.adapter import Adapter, Install
from enginebench.domain import JSON, plain_object
from enginebench.engines.chosen import choose, chosen, forget, runnable
from enginebench.engines.environments import Pins, install, python_of
from enginebench.engines.registry import discover, environments
from enginebench.engines.tools import python_of_tool, tools
from enginebench.errors import UserError, did_you_mean
from enginebench.machine.folders import cache_dir


@dataclass(frozen=True)
class Engine:
    name: str
    """As in a scenario's `engine`."""
    title: str = ""
    runtimes: tuple[str, ...] = ()
    """How it can be started: 'process', 'docker', 'attach', 'in-process'."""
    precisions: tuple[str, ...] | None = None
    """Supported precisions; None: any."""
    requirements: tuple[str, ...] = ()
    """Pinned packages that `install_engine` installs; empty: enginebench does not install this engine."""
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of another set of requirements -> its pinned packages."""
    installs: tuple[Install, ...] = ()
    """Every installation found on this machine, best first."""
    broken: str | None = None
    """Why its adapter cannot be loaded; then only `name` is known."""

    def to_dict(self) -> JSON:
        if self.broken is not None:
            return {"name": self.name, "broken": self.broken}
        return {key: value for key, value in plain_object(self).items() if key != "broken"}


def list_engines(adapters: Sequence[str | Path] = ()) -> list[Engine]:
    """All engines by name; those with a broken adapter last.

    adapters: further adapter files. UserError when one of these is missing or broken.
    """
    working, broken = discover(map(Path, adapters)).survey()
    return [*map(_engine, working), *(Engine(name, broken=reason) for name, reason in broken.items())]


def install_engine(name: str, *, adapters: Sequence[str | Path] = (), on_step: Callable[[str], None] = lambda _: None) -> Engine:
    """Install an engine into its own virtual environment from pinned requirements; does nothing when it is already there.

    name: 'vllm', or 'vllm:cpu' for a variant; or a tool, 'lm-eval'. adapters: further adapter files. on_step: receives one sentence
    per step.
    UserError for an unknown engine or variant, for one that enginebench does not install, and with pip's last lines when pip fails.
    """
    if name in tools():
        return _tool(name, on_step)
    engine, colon, variant = name.partition(":")
    adapter = discover(map(Path, adapters)).need(engine)
    known = environments(adapter)
    environment = f"{engine}-{variant}" if colon else engine
    if environment not in known:
        if colon:
            advice = did_you_mean(variant, adapter.variants) or f"bench engines install {engine}"
            raise UserError(f"{adapter.title} has no variant '{variant}'", advice=advice)
        raise UserError(f"{adapter.title} has nothing to install: it is used where it is")
    install(environment, known[environment], on_step)
    _python_of.cache_clear()
    return _engine(adapter)


def use_engine(name: str, python: str | Path, *, adapters: Sequence[str | Path] = ()) -> Engine:
    """From now on start this engine with an interpreter of a person's own, before any environment of enginebench. Installs nothing.

    name: 'vllm'. python: '/opt/venv/bin/python'. adapters: further adapter files. UserError for an unknown engine, for a path that cannot
    be run, and for an environment that does not have the engine.
    """
    adapter = discover(map(Path, adapters)).need(name)
    path = runnable(python)
    if not any(install.python is not None for install in adapter.find(path)):
        raise UserError(f"{adapter.title} is not installed for {path}", advice=f"{path} -m pip list shows what is")
    choose(name, path)
    return _engine(adapter)


def forget_engine(name: str, *, adapters: Sequence[str | Path] = ()) -> Engine:
    """Undo `use_engine`: only environments that enginebench made count again. UserError where there is nothing to undo."""
    adapter = discover(map(Path, adapters)).need(name)
    if not forget(name):
        raise UserError(f"no interpreter was chosen for {adapter.title}", advice=f"bench engines use {name} /opt/venv/bin/python")
    return _engine(adapter)


def _tool(name: str, on_step: Callable[[str], None]) -> Engine:
    """A program that is no engine, installed in the same way."""
    pins = tools()[name]
    install(name, pins, on_step)
    python, version = python_of_tool(name), pins.requirements[0].partition("==")[2]
    return Engine(name, requirements=pins.requirements, installs=(Install(name, version, python=python),))


def installs_of(adapter: Adapter) -> Sequence[Install]:
    """Every installation of an engine on this machine, best first: in the interpreter that was chosen for it, then elsewhere."""
    built = [chosen(adapter.name), *(_python_of(name, pins, cache_dir()) for name, pins in environments(adapter).items())]
    pythons: Sequence[Path | None] = [python for python in built if python is not None] or [None]
    return list(dict.fromkeys(each for python in pythons for each in adapter.find(python)))


@cache
def _python_of(environment: str, pins: Pins, home: Path) -> Path | None:  # noqa: ARG001  # a part of the key
    """`python_of`, once per folder that environments are in."""
    return python_of(environment, pins)


def _engine(adapter: Adapter) -> Engine:
    precisions = None if adapter.precisions is None else tuple(sorted(adapter.precisions))
    pins = {variant: tuple(requirements) for variant, requirements in adapter.variants.items()}
    pinned = (tuple(adapter.requirements), pins)
    return Engine(adapter.name, adapter.title, tuple(adapter.runtimes), precisions, *pinned, tuple(installs_of(adapter)))
