"""Finds adapters: the built-in files, entry points of other packages, and files named on the command line. All load the same way.

Adapter files are loaded by path under `enginebench_adapters.<stem>`; adapters/ is never put on sys.path, because its file names are the
engines' own module names. Does not know what an adapter does.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from enginebench.adapter import Adapter
from enginebench.engines.environments import Pins
from enginebench.errors import UserError, did_you_mean
from enginebench.machine.folders import resource_dir

ENTRY_POINT_GROUP = "enginebench.adapters"


class Registry(Mapping[str, Adapter]):
    """Adapters by engine name. Each is loaded when it is first needed, so a broken one does not affect the others."""

    def __init__(self, loaders: Mapping[str, Callable[[], Adapter]]) -> None:
        self._loaders = dict(loaders)
        self._loaded: dict[str, Adapter] = {}

    def __getitem__(self, name: str) -> Adapter:
        if name not in self._loaded:
            self._loaded[name] = self._loaders[name]()
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._loaders  # Mapping's own would load the adapter

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._loaders))

    def __len__(self) -> int:
        return len(self._loaders)

    def need(self, name: str) -> Adapter:
        """The adapter of that name, or a UserError with the nearest known name."""
        if name not in self:
            raise UserError(f"there is no engine '{name}'", advice=did_you_mean(name, self))
        return self[name]

    def survey(self) -> tuple[list[Adapter], dict[str, str]]:
        """The adapters that load, and name -> reason for those that do not."""
        sound: list[Adapter] = []
        broken: dict[str, str] = {}
        for name in self:
            try:
                sound.append(self[name])
            except UserError as error:
                broken[name] = str(error)
        return sound, broken


def discover(extra: Iterable[Path] = ()) -> Registry:
    """Built-in adapters, then installed plugins, then the files in `extra`; a later one of the same name wins.

    The files in `extra` are loaded at once: UserError for one that is missing or broken.
    """
    extra = list(extra)
    files = sorted(resource_dir("adapters").glob("*.py"))
    loaders: dict[str, Callable[[], Adapter]] = {file.stem: partial(load_file, file) for file in files}
    loaders |= {point.name: partial(_load_plugin, point) for point in entry_points(group=ENTRY_POINT_GROUP)}
    loaders |= {file.stem: partial(load_file, file) for file in extra}
    registry = Registry(loaders)
    for file in extra:
        registry.need(file.stem)
    return registry


def constraints_of(adapter: Adapter, environment: str | None = None) -> Path | None:
    """The file of exact pins next to an adapter's file, built-in or not. environment: one of `environments`; None: the adapter's own."""
    file = Path(inspect.getfile(type(adapter))).with_name(f"{environment or adapter.name}.constraints.txt")
    return file if file.is_file() else None


def environments(adapter: Adapter) -> Mapping[str, Pins]:
    """Name -> pins of every environment of an engine: its own first, then its variants'."""
    own = {adapter.name: adapter.requirements} if adapter.requirements else {}
    wanted = own | {f"{adapter.name}-{variant}": requirements for variant, requirements in adapter.variants.items()}
    return {name: Pins(pins, constraints_of(adapter, name), adapter.unwanted.get(name, ())) for name, pins in wanted.items()}


def load_file(file: Path) -> Adapter:
    """Load one adapter file and return its adapter. The file must define exactly one Adapter subclass, named like the file."""
    if not file.is_file():
        raise UserError("no such adapter file", file=file)
    module = _load_module(file)
    found = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Adapter) and c.__module__ == module.__name__]
    concrete = [c for c in found if not inspect.isabstract(c)]
    if len(concrete) != 1:
        raise UserError(f"defines {len(concrete)} complete Adapter subclasses, expected one", file=file)
    name = getattr(concrete[0], "name", None)
    if name != file.stem:
        raise UserError(f"its adapter has the name '{name}': the file must be {name}.py", file=file)
    try:
        adapter: Adapter = concrete[0]()
    except Exception as error:
        raise UserError(f"its adapter cannot be created: {_error_text(error)}", file=file) from error
    return adapter


def _load_plugin(point: EntryPoint) -> Adapter:
    package = point.dist.name if point.dist else point.module
    try:
        adapter = point.load()()
    except (Exception, SystemExit) as error:
        raise UserError(f"the engine '{point.name}' of package {package} cannot be loaded: {_error_text(error)}") from error
    if not isinstance(adapter, Adapter) or getattr(adapter, "name", None) != point.name:
        raise UserError(f"package {package} declares an engine '{point.name}', but {point.value} is not an adapter of that name")
    return adapter


def _load_module(file: Path) -> ModuleType:
    name = f"enginebench_adapters.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError("not a Python file", file=file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before execution: dataclasses look up their module there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"cannot be loaded: {_error_text(error)}", file=file, line=_line(error, file)) from error
    return module


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _line(error: BaseException, file: Path) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return lines[-1] if lines else None
