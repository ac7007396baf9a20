"""Finds adapters: the built-in files, entry points of other packages, and files named on the command line. One door for all.

Adapter files are loaded by path under `enginebench_adapters.<stem>`; adapters/ is never put on sys.path, because its file
names are the engines' own module names. Knows nothing of what an adapter does.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from enginebench.adapter import Adapter
from enginebench.errors import UserError, did_you_mean
from enginebench.resources import folder

ENTRY_POINT_GROUP = "enginebench.adapters"


class Registry(Mapping[str, Adapter]):
    """Adapters by engine name; a file is loaded when its engine is first asked for."""

    def __init__(self, files: Iterable[Path], plugins: Mapping[str, type[Adapter]] | None = None) -> None:
        self._files = {file.stem: file for file in files}
        self._plugins = dict(plugins or {})
        self._loaded: dict[str, Adapter] = {}

    def __getitem__(self, name: str) -> Adapter:
        if name not in self._loaded:
            if name in self._plugins:
                self._loaded[name] = self._plugins[name]()
            elif name in self._files:
                self._loaded[name] = load_file(self._files[name])
            else:
                raise KeyError(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._files | self._plugins))

    def __len__(self) -> int:
        return len(self._files | self._plugins)

    def need(self, name: str) -> Adapter:
        """The adapter of that name, or a UserError with the nearest name there is."""
        try:
            return self[name]
        except KeyError:
            raise UserError(f"there is no engine '{name}'", advice=did_you_mean(name, self)) from None


def discover(extra: Iterable[Path] = ()) -> Registry:
    """Built-in adapters, then installed plugins, then the files in `extra`; a later one of the same name wins."""
    files = [*sorted(folder("adapters").glob("*.py")), *extra]
    plugins = {point.name: point.load() for point in entry_points(group=ENTRY_POINT_GROUP)}
    return Registry(files, plugins)


def load_file(file: Path) -> Adapter:
    """Load one adapter file and return its adapter. The file must hold exactly one Adapter subclass named like the file."""
    if not file.is_file():
        raise UserError("there is no such adapter file", file=file)
    module = _load_module(file)
    found = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Adapter) and c.__module__ == module.__name__]
    concrete = [c for c in found if not inspect.isabstract(c)]
    if len(concrete) != 1:
        raise UserError(f"holds {len(concrete)} complete Adapter subclasses, expected one", file=file)
    adapter: Adapter = concrete[0]()
    if adapter.name != file.stem:
        raise UserError(f"its adapter is called '{adapter.name}'; the file must be called {adapter.name}.py", file=file)
    return adapter


def _load_module(file: Path) -> ModuleType:
    name = f"enginebench_adapters.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError("is not a Python file", file=file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before execution: dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
