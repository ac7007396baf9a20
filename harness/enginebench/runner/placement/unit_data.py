"""One server start with its loads, as data that travels: a file with all that a node needs besides enginebench, engine and weights."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from enginebench import __version__
from enginebench.checkpoints.content import Content
from enginebench.domain import JSON, Cell, Deployment
from enginebench.domain.quality import QualityCheck
from enginebench.errors import UserError
from enginebench.records.files import write_atomically
from enginebench.records.schema import SCHEMA, StoredLoad, StoredSearch, dump, parse, read

ENDED, NODE, INPUTS = "ended.json", "node.json", "inputs"
"""Files of a unit's folder, and the folder of the data files that came with the unit."""
MEETING = "meeting.json"
"""Where the node that measures waits for the other nodes of its engine, and the key with which they come; gone when they have come."""
VERSION = __version__


@dataclass(frozen=True)
class Setting:
    """What the cells of a unit take from their scenario."""

    name: str
    title: str | None = None
    description: str | None = None
    file: str = "scenario.yaml"
    """Absolute path where the scenario was read. Relative paths of checkpoints start from its folder, if that is here."""
    text: str = ""
    hardware: str | None = None
    hardware_by_command: bool = False
    equal_within: float | None = None
    slo: Mapping[str, JSON] | None = None
    parity: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Unit:
    """One server start with its loads. Plain data: `write` and `read_unit`."""

    id: str
    """A file name: the launch id, and the try."""
    name: str
    """For people: 'llamacpp f16, repeat 2'."""
    deployment: Deployment
    loads: tuple[StoredLoad, ...]
    repeat: int
    setting: Setting
    searches: Mapping[str, StoredSearch] = field(default_factory=dict)
    """Id of a cell -> the search that begins with it."""
    inputs: Mapping[str, Content] = field(default_factory=dict)
    """What the driver's files contain. Files of the node must contain the same."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Data sets and traces: path relative to the scenario -> content, in base 64."""
    adapter: Mapping[str, str] = field(default_factory=dict)
    """Path -> source of each file of its adapter, if that is not built in."""
    gpus: int = 0
    """Devices that it takes where there are any, on all of its nodes together."""
    needs_gpus: bool = False
    """Whether it cannot run without them."""
    exclusive: bool = True
    """Whether it needs a node for itself."""
    cores: int = 0
    """Cores that it takes of a node that it shares."""
    client_processes: int = 1
    wait_quiet_s: float = 0.0
    share_machine: bool = False
    enginebench: str = __version__
    """Version of the driver; the node must have the same."""
    quality: QualityCheck | None = None
    """What is measured of the deployment's quality after the loads; None: nothing, or another unit of the deployment does it."""
    attempt: int = 0
    run: str = ""
    """Name of the run folder that it is measured for. A driver that was lost is followed by one that finds its units by it."""
    schema: int = SCHEMA

    @property
    def launch_id(self) -> str:
        """Id of the server start, which every try of the unit has."""
        return self.id.rpartition("-")[0]

    @property
    def next_id(self) -> str:
        """Id of the next try."""
        head, _, number = self.id.rpartition("-")
        return f"{head}-{int(number) + 1}"

    @property
    def gpus_each(self) -> int:
        """Devices on each of its nodes."""
        return self.gpus // self.deployment.nodes

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are known before it runs; searches add theirs."""
        return tuple(Cell(self.deployment, each, self.repeat) for each in self.loads)

    def write(self, file: Path) -> None:
        write_atomically(file, dump(self))


def read_unit(file: Path) -> Unit:
    """UserError if it is damaged or of another version of enginebench."""
    return parse_unit(read(file).decode(), file)


def parse_unit(text: str, file: Path = Path("unit.json")) -> Unit:
    """The unit of a file with this content, see `read_unit`."""
    unit = parse(text.encode(), file, Unit, {})
    if unit.enginebench != __version__:
        advice = "install the same version on all nodes"
        raise UserError(f"enginebench {__version__} is here, and the driver has {unit.enginebench}", advice=advice)
    return unit


def unpack(unit: Unit, folder: Path) -> None:
    """Write the data files of a unit. UserError for a path outside the folder."""
    for name, content in unit.files.items():
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise UserError(f"a file of the unit is outside its folder: {name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(content))
