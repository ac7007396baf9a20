"""Finds adapters: the built-in ones, entry points of other packages, and those named on the command line. All load the same way.

An adapter is a file, or a folder with an `__init__.py`. It is loaded by path under `enginebench_adapters.<name>`; adapters/ is never put on
sys.path, because its names are the engines' own module names. Does not know what an adapter does.
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
_PACKAGE = "enginebench_adapters."
_FOLDER_FILE = "__init__.py"


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
    """Built-in adapters, then installed plugins, then those in `extra`, files or folders; a later one of the same name wins.

    Those in `extra` are loaded at once: UserError for one that is missing or broken.
    """
    named = [(file.parent if file.name == _FOLDER_FILE else file).absolute() for file in extra]
    folder = resource_dir("adapters")
    built_in = sorted([*folder.glob("*.py"), *(file.parent for file in folder.glob(f"*/{_FOLDER_FILE}"))])
    loaders: dict[str, Callable[[], Adapter]] = {file.stem: partial(load_file, file) for file in built_in}
    loaders |= {point.name: partial(_load_plugin, point) for point in entry_points(group=ENTRY_POINT_GROUP)}
    loaders |= {file.stem: partial(load_file, file) for file in named}
    registry = Registry(loaders)
    for file in named:
        registry.need(file.stem)
    return registry


def path_of(adapter: type) -> Path | None:
    """The file or folder that an adapter was loaded from by its path; None for one of an installed package."""
    file = Path(inspect.getfile(adapter))
    if not adapter.__module__.startswith(_PACKAGE):
        return None
    return file.parent if file.name == _FOLDER_FILE else file


def constraints_of(adapter: Adapter, environment: str | None = None) -> Path | None:
    """The file of exact pins next to an adapter, built-in or not. environment: one of `environments`; None: the adapter's own."""
    beside = path_of(type(adapter)) or Path(inspect.getfile(type(adapter)))
    file = beside.with_name(f"{environment or adapter.name}.constraints.txt")
    return file if file.is_file() else None


def environments(adapter: Adapter) -> Mapping[str, Pins]:
    """Name -> pins of every environment of an engine: its own first, then its variants'."""
    own = {adapter.name: adapter.requirements} if adapter.requirements else {}
    wanted = own | {f"{adapter.name}-{variant}": requirements for variant, requirements in adapter.variants.items()}
    return {name: Pins(pins, constraints_of(adapter, name), adapter.unwanted.get(name, ())) for name, pins in wanted.items()}


def load_file(file: Path) -> Adapter:
    """Load an adapter from its file, or from the __init__.py of its folder, which must define exactly one Adapter subclass, of its name."""
    source = file / _FOLDER_FILE if file.is_dir() else file
    if not source.is_file():
        raise UserError("no such adapter file", file=source)
    module = _load_module(file.stem, source)
    found = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Adapter) and c.__module__ == module.__name__]
    concrete = [c for c in found if not inspect.isabstract(c)]
    if len(concrete) != 1:
        raise UserError(f"defines {len(concrete)} complete Adapter subclasses, expected one", file=source)
    name = getattr(concrete[0], "name", None)
    if name != file.stem:
        expected = f"{name}.py" if source == file else f"{name}/"
        raise UserError(f"its adapter has the name '{name}': it must be in {expected}", file=source)
    try:
        adapter: Adapter = concrete[0]()
    except Exception as error:
        raise UserError(f"its adapter cannot be created: {_error_text(error)}", file=source) from error
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


def _load_module(stem: str, file: Path) -> ModuleType:
    name = _PACKAGE + stem
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError("not a Python file", file=file)
    module = importlib.util.module_from_spec(spec)
    _forget(name)  # another adapter of this name may be a folder whose modules are loaded
    sys.modules[name] = module  # before execution: dataclasses look up their module there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        _forget(name)
        where, line = _place(error, file)
        raise UserError(f"cannot be loaded: {_error_text(error)}", file=where, line=line) from error
    return module


def _forget(name: str) -> None:
    for each in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[each]


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _place(error: BaseException, file: Path) -> tuple[Path, int | None]:
    """The file of an adapter, and the line in it, where loading it failed. file: its first one."""
    own = {str(each) for each in (file.parent.glob("*.py") if file.name == _FOLDER_FILE else (file,))}
    if isinstance(error, SyntaxError) and error.filename in own:
        return Path(error.filename), error.lineno
    places: list[tuple[Path, int | None]] = [(file, None)]
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in own:
            places.append((Path(trace.tb_frame.f_code.co_filename), trace.tb_lineno))
        trace = trace.tb_next
    return places[-1]
