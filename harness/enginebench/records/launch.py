"""What is stored about one server start: launches/<id>.json. The runner completes the record while the engine starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from enginebench.adapter import Difference, Install, Launch
from enginebench.domain import JSON, Deployment
from enginebench.domain.ids import text_of
from enginebench.records.quality import QualityRecord
from enginebench.records.schema import SCHEMA


@dataclass(frozen=True)
class NodeStart:
    """A node of an engine that spans several, besides the first."""

    name: str
    """As the placement calls it."""
    address: str
    """At which the others reach it."""
    install: Install | None = None
    """The installation of the engine there."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Packages of that installation and their versions."""
    machine: Mapping[str, JSON] = field(default_factory=dict)
    """Facts about it."""


@dataclass
class Startup:
    """How the engine was started. Filled in step by step, so that a failed start keeps what was known by then."""

    command: Launch | None = None
    """What was started: command, environment and files of every server. None: an attached server, or a start that failed earlier."""
    install: Install | None = None
    """The installation of the engine that was used; None for an attached server."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Name -> version of every package in the engine's environment."""
    inherited: tuple[str, ...] = ()
    """Names of the environment variables passed on to the engine."""
    container: Mapping[str, JSON] = field(default_factory=dict)
    """With `runtime: docker`: image, its id and digests, and the base it was built on."""
    identity: str | None = None
    """'proven': the server on the port is the process that was started. Otherwise why that could not be verified."""
    start_s: float | None = None
    """Seconds from exec until ready."""
    first_generation_s: float | None = None
    """Duration of the first generation: a few tokens from an idle engine."""
    counts_tokens: bool = True
    """Whether the server reported a token count for its first generation."""
    stop_s: float | None = None
    """Seconds that stopping took."""
    nodes: tuple[NodeStart, ...] = ()
    """The nodes after the first of an engine that spans several; `Member.node` of the command counts them from 1."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Approximations the adapter made."""
        return self.command.notes if self.command else ()


@dataclass(frozen=True)
class Configuration:
    """The configuration the engine reports, compared with the one that was asked for."""

    resolved: Mapping[str, JSON] = field(default_factory=dict)
    """An `enginebench.adapter.Resolved` as plain data; empty in a record of a start that failed."""
    differences: tuple[Difference, ...] = ()
    """Fields in which the engine runs with something other than what was asked for."""


@dataclass
class LaunchRecord:
    """One server start."""

    id: str
    """The plan's launch id; a restart has -2, -3, ... appended. Also the name of the log files in logs/."""
    deployment: Deployment
    """What was started, the same as in the records of its cells."""
    repeat: int
    """Index of the repeat that its cells belong to, from 0."""
    started_at: str
    """UTC, ISO 8601."""
    startup: Startup = field(default_factory=Startup)
    """Command, installation and durations of the start."""
    configuration: Configuration = field(default_factory=Configuration)
    """What the engine reported once it was ready; empty if it never was."""
    parity: tuple[Mapping[str, JSON], ...] = ()
    """Greedy outputs for fixed prompts, each with prompt, output and outcome."""
    quality: QualityRecord | None = None
    """What a `quality` of the scenario measured on this start; None: nothing."""
    ended: str | None = None
    """Why the engine was given up or ended by itself; None: stopped when its cells were done."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What it was measured with -> its SHA-256, after '~' where only samples were hashed. Names as in `RunRecord.inputs`."""
    node: str = ""
    """Name of the node that it ran on; empty: on the machine of the run."""
    machine: Mapping[str, JSON] = field(default_factory=dict)
    """Facts about that node, in the place of those of the run."""
    unit: str = ""
    """The unit that it came with, and its id there: 'UNIT/LAUNCH'."""
    schema: int = SCHEMA
    """Version of the format it is stored in."""

    @property
    def version(self) -> str | None:
        """Version that the engine reports, otherwise that of its installation."""
        install, reported = self.startup.install, self.configuration.resolved.get("version")
        return str(reported) if reported else install.version if install else None

    @property
    def variant(self) -> str | None:
        """Variant of the installation."""
        return self.startup.install.variant if self.startup.install else None


def latest_quality(launches: Mapping[str, LaunchRecord], deployment: Deployment) -> QualityRecord | None:
    """What was measured last of a deployment's quality, which may have been on a start of its own; None: nothing."""
    measured = [its for its in launches.values() if its.quality is not None]
    text = text_of(deployment) if measured else ""
    of_it = [its for its in measured if text_of(its.deployment) == text]
    return max(of_it, key=lambda its: (its.started_at, len(its.id), its.id)).quality if of_it else None
