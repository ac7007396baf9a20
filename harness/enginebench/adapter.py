"""The whole surface between enginebench and an engine. An adapter is one file in adapters/ with one `Adapter` subclass.

An adapter decides and translates; it never does I/O itself. It says what an engine supports, turns a neutral deployment into
argv, environment and files, knows what "ready" looks like, spells requests, and says where the engine's own counters and
resolved configuration are. The harness starts processes, opens sockets, keeps time and judges. Adapters import from
`enginebench.adapter` only; the harness never imports an engine. Code that must run where the engine is installed (an
in-process batch, a server around a library) lives in adapters/workers/<engine>_worker.py and imports only the standard
library and that engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

from pydantic import TypeAdapter

from enginebench.dialects import PROTOCOLS, Dialect, Event, OpenAIChat, OpenAICompletions, ProtocolName
from enginebench.dialects.replies import as_list, as_object, only, parsed, prometheus_totals, without_secrets
from enginebench.domain import JSON, Deployment, Load, Parallelism, Runtime
from enginebench.machine.folders import resource_dir
from enginebench.machine.installs import Install, installed_packages, installed_version

__all__ = [
    "GAUGES",
    "JSON",
    "PROTOCOLS",
    "TOTALS",
    "WORKERS",
    "Adapter",
    "Deployment",
    "Dialect",
    "Difference",
    "Event",
    "Get",
    "Install",
    "Launch",
    "Load",
    "Member",
    "NoOptions",
    "NotInstalled",
    "OpenAIChat",
    "OpenAICompletions",
    "Parallelism",
    "ProtocolName",
    "Readiness",
    "Reply",
    "Resolved",
    "Runtime",
    "Site",
    "Unsupported",
    "as_list",
    "as_object",
    "flags_of",
    "installed_packages",
    "installed_version",
    "only",
    "options_as",
    "prometheus_totals",
    "without_secrets",
]

WORKERS = resource_dir("adapters") / "workers"
"""Where engine-side scripts live."""


class Unsupported(Exception):  # noqa: N818  # a verdict, not a mishap
    """The engine cannot express this deployment; the text says what and why. The cell is skipped with that reason."""


class NotInstalled(Unsupported):
    """The engine, or the variant of it that was asked for, is not on this machine; `bench run` refuses before it starts."""


@dataclass(frozen=True)
class NoOptions:
    """An engine without options of its own."""


@dataclass(frozen=True)
class Site:
    """Where one launch happens: the address to listen on, a private folder, and the checkpoint's local path (or hub id).

    ports: further free ports, as many as the adapter's `extra_ports` asked for.
    """

    host: str
    port: int
    folder: Path
    checkpoint: str
    ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class Member:
    """A server of a deployment beside the one that requests go to: the prefill or the decode side of a disaggregated pair.

    name: of its log and of its folder, Site.folder / name, into which files are written. port: where it listens; it is ready when
    the adapter's `readiness` says so of that port.
    """

    name: str
    argv: tuple[str, ...]
    port: int
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Launch:
    """What the runtime starts, with nothing left to decide.

    env is *added* to a minimal inherited environment. files are written into Site.folder first. served_name is the model
    name that requests must carry. notes: every approximation that was made ("bf16 KV became auto"). ready_timeout_s: how
    long loading may look like loading. members: servers that are started, all at once, and must be ready before argv is.
    """

    argv: tuple[str, ...]
    served_name: str
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ready_timeout_s: float = 600.0
    members: tuple[Member, ...] = ()

    @property
    def commands(self) -> Sequence[tuple[str, tuple[str, ...], Mapping[str, str]]]:
        """(name, argv, env) of all that is started, in this order: the members, and last the main one, whose name is empty."""
        return [*((member.name, member.argv, member.env) for member in self.members), ("", self.argv, self.env)]


@dataclass(frozen=True)
class Reply:
    """What a quick GET said. status 0: nobody answered (connection refused or reset)."""

    status: int
    body: bytes = b""

    def json(self) -> JSON:
        """The body as JSON, see `told.parsed`; None when it is not JSON."""
        return parsed(self.body)


Get = Callable[[str], Reply]
"""GET a path of the server under test; provided by the harness."""


TOTALS: Mapping[str, str] = {
    "prompt_tokens": "tokens of prompts, cached ones included",
    "cached_tokens": "tokens of prompts that came from a prefix cache",
    "output_tokens": "tokens generated",
    "preemptions": "requests that lost their KV cache to others and were computed again",
    "draft_tokens": "tokens proposed by speculation",
    "accepted_tokens": "proposed tokens that the model accepted",
}
"""Counters that only grow: a cell's share is the difference between its end and its beginning."""

GAUGES: Mapping[str, str] = {
    "running": "requests in the batch",
    "waiting": "requests in the queue",
    "kv_use": "share of the KV cache in use, 0 to 1",
}
"""Counters that say how it is now."""

Readiness = Literal["loading", "ready", "broken"]


@dataclass(frozen=True)
class Resolved:
    """What the engine says of itself, read back after launch. raw is stored verbatim; the other fields are neutral names.

    None means that the engine does not say. slots: requests it can run at once. context: tokens one request may hold.
    batch_tokens: tokens of one forward pass, at most. kv_tokens: tokens that the whole KV cache holds. graphs: how device graphs
    are used, in the engine's word ('off' where they are not). stream_interval: tokens in one event of a stream. options: engine
    options it reports on, under the names the scenario uses.
    """

    version: str | None = None
    model: str | None = None
    precision: str | None = None
    context: int | None = None
    slots: int | None = None
    prefix_cache: bool | None = None
    kv_dtype: str | None = None
    kv_tokens: int | None = None
    chunked_prefill: bool | None = None
    batch_tokens: int | None = None
    graphs: str | None = None
    stream_interval: int | None = None
    options: Mapping[str, JSON] = field(default_factory=dict)
    raw: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One field in which the engine's resolved configuration is not what was asked for."""

    name: str
    asked: JSON
    got: JSON


_Options = TypeVar("_Options")


def options_as(kind: type[_Options], deployment: Deployment) -> _Options:
    """The deployment's options, which are plain data, as the adapter's own dataclass and those inside it. They were validated against it
    when the scenario was read."""
    read: TypeAdapter[_Options] = _reader(cast("type", kind))
    return read.validate_python(dict(deployment.options))


@cache
def _reader(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def flags_of(values: Mapping[str, JSON]) -> list[str]:
    """['--flag', 'value', ...]; a flag whose value is None is left out, and with it what the engine does by default."""
    return [text for flag, value in values.items() if value is not None for text in (flag, str(value))]


class Adapter(ABC):
    """One engine. Subclass, fill in the class attributes, and implement what is abstract."""

    name: ClassVar[str]
    title: ClassVar[str]
    """The engine's name as its own project writes it."""
    requirements: ClassVar[tuple[str, ...]] = ()
    """Exact pins (`package==version`) for `bench engines install`; empty: nothing to install. A file <name>.constraints.txt
    beside the adapter pins what they pull in."""
    variants: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Other sets of pins by name, for machines that `requirements` does not fit: `bench engines install <name>:<variant>`, with
    <name>-<variant>.constraints.txt beside the adapter."""
    unwanted: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """<name> or <name>-<variant> -> packages that its requirements pull in and that are taken out again after the installation: those of
    which only a build is found that does not fit, and whose mere presence makes others import them and fail."""
    checkpoint_format: ClassVar[Literal["gguf", "safetensors", "none"]] = "none"
    precisions: ClassVar[frozenset[str] | None] = None
    """Precisions that exist for this engine; None: whatever the checkpoint is (attach)."""
    runtimes: ClassVar[tuple[Runtime, ...]] = ("process",)
    apis: ClassVar[tuple[str, ...]] = ("completions",)
    options: ClassVar[type] = NoOptions
    """A frozen dataclass of engine options with defaults: the only keys a scenario may put under `options`."""
    prompt_form: ClassVar[Literal["ids", "text"]] = "ids"
    length_control: ClassVar[Literal["exact", "cap"]] = "exact"
    """exact: the engine can be made to produce exactly output_tokens. cap: it may stop earlier, and the result says so."""

    # -- before launch ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def find(self, python: Path | None) -> Sequence[Install]:
        """Every way the engine is present; python is the interpreter of its own environment if one was installed. May read
        the file system (package metadata, PATH), starts no process and imports no engine. Best first."""

    def choose(self, deployment: Deployment, installs: Sequence[Install]) -> Install:
        """Which of the ways found serves this deployment. Default: the best one. Raises NotInstalled when none can."""
        if not installs:
            raise NotInstalled(f"{self.title} is not installed here")
        return installs[0]

    @abstractmethod
    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        """The command that serves (or, for runtime in-process, the worker that batches). Pure. Raises Unsupported."""

    def takes_ids(self, deployment: Deployment) -> bool:
        """Whether prompts go to this deployment as token ids. Default: as prompt_form says."""
        return self.prompt_form == "ids"

    def forces_length(self, deployment: Deployment) -> bool:
        """Whether this deployment produces exactly the tokens asked for. Default: as length_control says."""
        return self.length_control == "exact"

    def check(self, deployment: Deployment) -> None:
        """Refuse what this engine cannot express, without an install at hand. Raises Unsupported. Default: no parallelism."""
        if deployment.parallelism != Parallelism():
            raise Unsupported(f"{self.title} has no tensor, pipeline, data or expert parallelism here")

    def gpus(self, deployment: Deployment) -> int:
        """Devices that the deployment takes, where it runs on any. Default: every rank of every stage of every replica its own."""
        parallelism = deployment.parallelism
        return parallelism.tp * parallelism.pp * parallelism.dp_replicas

    def extra_ports(self, deployment: Deployment) -> int:
        """How many free ports `launch` needs in Site.ports, beside the one that requests go to."""
        return 0

    def random_weights(self, deployment: Deployment) -> bool:
        """Whether the engine makes its weights up (a dummy load format) instead of reading the checkpoint's. A random router sends
        tokens to a few experts only, so such a Mixture-of-Experts cell is never ranked unless `forces_routing`."""
        return False

    def forces_routing(self, deployment: Deployment) -> bool:
        """Whether the engine was told to spread tokens over the experts by a rule instead of by its router."""
        return False

    def check_loads(self, deployment: Deployment, loads: Sequence[Load]) -> None:
        """Refuse loads that one start of this engine cannot serve together. Raises Unsupported.

        Default: a server takes any; an in-process batch is a number of single requests of one output length, all sent at once.
        """
        if deployment.runtime != "in-process":
            return
        for load in loads:
            if load.open_loop or load.turns > 1 or load.duration_s is not None:
                raise Unsupported("an in-process batch is sent at once: no request rate, trace, duration or conversation")
            if load.lengths is not None or not isinstance(load.output_tokens, int):
                raise Unsupported("an in-process batch has one output length: write a number for output_tokens")

    # -- while it runs ---------------------------------------------------------------------------------------------------

    def readiness(self, get: Get) -> Readiness:
        """One quick look; called until it says ready. Default: GET /health is 200 = ready, refused or 503 = loading."""
        status = get("/health").status
        return "ready" if status == 200 else "loading" if status in (0, 503) else "broken"

    def resolved(self, get: Get) -> Resolved:
        """Read the engine's own configuration back. Default: it does not say."""
        return Resolved()

    def dialect(self, deployment: Deployment, load: Load) -> Dialect:
        """How this deployment's streams are spelled for this load's API."""
        return OpenAIChat() if load.api == "chat" else OpenAICompletions()

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        """Fields added to every request body: forced length, stream usage, cache switches. A strict whitelist per engine."""
        return {}

    def counters(self, get: Get) -> Mapping[str, float]:
        """The engine's own counters under the names of TOTALS and GAUGES; empty: the engine has none.

        Read before and after a cell. In between another process fetches the paths that were asked for then, once a second, and the
        replies are read with this same method when the cell is over: it must depend on nothing but what `get` returns."""
        return {}
