"""The interface between enginebench and an engine. An adapter is one file in adapters/ with one `Adapter` subclass.

An adapter decides and translates; it does no I/O. It says what an engine supports, turns a deployment into commands, environment and
files, says when the engine is ready, spells requests, and finds the engine's counters and resolved configuration. The harness starts
processes, opens sockets, keeps time and judges. Adapters import only this module; the harness never imports an engine. Code that must run
inside the engine's environment is in adapters/workers/<engine>_worker.py and imports only the standard library and that engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from enginebench.dialects import PROTOCOLS, Dialect, Event, OpenAIChat, OpenAICompletions, ProtocolName
from enginebench.dialects import scoring as scoring
from enginebench.dialects.engine_state import GAUGES, TOTALS, Difference, Resolved, accepted_at
from enginebench.dialects.replies import (
    Fields,
    Get,
    Reply,
    accepted_per_position,
    as_list,
    as_object,
    given,
    only,
    prometheus_labels,
    prometheus_mean,
    prometheus_totals,
    renamed,
    without_secrets,
)
from enginebench.dialects.scoring import Scoring
from enginebench.domain import JSON, Deployment, Load, Parallelism, Runtime, Speculation
from enginebench.domain.launch import Launch, Member, Site
from enginebench.domain.precisions import GGUF_PRECISIONS, TORCH_DTYPES, from_torch
from enginebench.domain.speculation import SpeculationMethod
from enginebench.domain.tuning import Room, Tunable
from enginebench.inputs.engine_options import declared_flags, flags_of, on_off, option, options_as, reported_options, spread_flags
from enginebench.machine.folders import resource_dir
from enginebench.machine.installs import Install, find_package, installed_packages, installed_version

__all__ = [
    "CONTINUOUS_USAGE", "GAUGES", "GGUF_PRECISIONS", "JSON", "NEUTRAL_SAMPLING", "PROTOCOLS", "TORCH_DTYPES", "TOTALS", "WORKERS",
    "Adapter", "BatchingOptions", "Deployment", "Dialect", "Difference", "Event", "Fields", "Get", "Install", "Launch", "Load", "Member",
    "NoOptions", "NotInstalled", "OpenAIChat", "OpenAICompletions", "Parallelism", "PrefillDecode", "ProtocolName", "Readiness", "Reply",
    "Resolved", "Room", "Runtime", "Scoring", "Site", "Speculation", "SpeculationMethod", "Traits", "Tunable", "Unsupported", "accepted_at",
    "accepted_per_position", "as_list", "as_object", "check_disaggregated", "check_neutral", "check_quantization", "declared_flags",
    "find_package", "flags_of", "from_torch", "given", "holding", "installed_packages", "installed_version", "on_off", "only", "option",
    "options_as", "prometheus_labels", "prometheus_mean", "prometheus_totals", "proxy_argv", "refuse", "renamed", "reported_options",
    "scoring", "servers_of", "spread_flags", "with_package", "without_secrets",
]  # fmt: skip

WORKERS = resource_dir("adapters") / "workers"
"""Scripts that run inside an engine's environment."""

NEUTRAL_SAMPLING: Mapping[str, JSON] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""Fields that switch the engine's own sampling defaults off."""
CONTINUOUS_USAGE: Mapping[str, JSON] = {"include_usage": True, "continuous_usage_stats": True}
"""stream_options that put usage into every event: an event holds whatever one engine step made, and usage says how many tokens."""

Readiness = Literal["loading", "ready", "broken"]


class Unsupported(Exception):  # noqa: N818  # a verdict, not a malfunction
    """The engine cannot express this deployment, and the text says why. The cell is skipped with that reason."""


class NotInstalled(Unsupported):
    """The engine, or what the scenario needs of it, is not installed; `bench run` refuses before it starts.

    install: the command that installs it; None: `bench engines install` with the engine's name.
    """

    def __init__(self, reason: str, install: str | None = None) -> None:
        super().__init__(reason)
        self.install = install


def holding(*texts: tuple[object, str]) -> tuple[str, ...]:
    """The texts whose condition is true, in order."""
    return tuple(text for condition, text in texts if condition)


def refuse(*reasons: tuple[object, str]) -> None:
    """Raise Unsupported with the first reason whose condition is true."""
    for reason in holding(*reasons):
        raise Unsupported(reason)


def with_package(installs: Sequence[Install], package: str, what: str, install: str | None = None) -> Install:
    """The first install whose environment has this package, or is in an image, whose packages are unknown here. Raises NotInstalled."""
    for each in installs:
        if each.python is None or not each.python.exists() or installed_version(each.python, package):
            return each
    first = installs[0]
    raise NotInstalled(
        f"{what} needs the package {package}, which {first.variant} here lacks", install or f"{first.python} -m pip install {package}"
    )


def check_quantization(title: str, deployment: Deployment, quantization: str | None, precisions: Mapping[str, str]) -> None:
    """Refuse a quantization that does not make the deployment's precision; `precisions` maps the engine's names to precisions."""
    precision = deployment.precision
    means = precisions.get(quantization or "", precision)
    refuse(
        (precision not in {*TORCH_DTYPES, *precisions.values(), "int4"}, f"{title} has no precision '{precision}'"),
        (quantization and precision in TORCH_DTYPES, f"{quantization} quantizes the {precision} weights: name the precision they get"),
        (means != precision, f"{quantization} is {means}, not {precision}"),
    )


# -- options ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoOptions:
    """An engine without options of its own."""


@dataclass(frozen=True)
class BatchingOptions:
    """Options that engines with continuous batching share; None leaves the engine's default in place."""

    prefix_cache: bool = False
    """Let a prompt reuse the KV of an earlier one. Off: a repeated prompt is computed again, every time."""
    chunked_prefill: bool | None = None
    """Split long prompts over steps, together with decodes."""
    batch_tokens: int | None = None
    """Most tokens of one forward pass."""
    stream_interval: int = option("--stream-interval", 1)
    """Tokens in one event of a stream."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables of the engine and the libraries below it."""
    extra: tuple[str, ...] = ()
    """Further flags of the engine's server, passed through unchanged."""


@dataclass(frozen=True)
class PrefillDecode:
    """Prefill and decode on separate servers, each with the deployment's parallelism, behind our proxy."""

    prefill: int = 1
    decode: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """('prefill-0', ..., 'decode-0', ...)."""
        return (*(f"prefill-{i}" for i in range(self.prefill)), *(f"decode-{i}" for i in range(self.decode)))


def servers_of(pair: PrefillDecode | None) -> int:
    """How many servers there are behind the proxy; 0 without one."""
    return len(pair.names) if pair is not None else 0


def check_disaggregated(deployment: Deployment, pair: PrefillDecode | None) -> None:
    """Refuse what no engine can do with prefill and decode servers. Raises Unsupported."""
    if pair is None:
        return
    replicas = "a disaggregated server cannot have replicas: write more prefill and decode servers in place of dp_replicas"
    refuse(
        (deployment.runtime == "in-process", "disaggregated prefill needs several servers: there is none in-process"),
        (min(pair.prefill, pair.decode) < 1, "a disaggregated deployment needs at least one prefill and one decode server"),
        (deployment.parallelism.dp_replicas > 1, replicas),
    )


def check_neutral(adapter: Adapter, deployment: Deployment) -> None:
    """Refuse what the deployment asks for in neutral words and the adapter does not map. Raises Unsupported."""
    asked, elsewhere = deployment.speculation, deployment.runtime != "process"
    refuse(
        (deployment.loras and not adapter.takes_loras, f"{adapter.title} serves no LoRA adapters here: leave `loras` out"),
        (deployment.loras and elsewhere, "LoRA adapters are loaded by servers that are started as processes: write runtime: process"),
    )
    if asked is None:
        return
    title, known = adapter.title, ", ".join(sorted(adapter.speculates))
    own = [name for name in adapter.speculation_options if deployment.options.get(name)]
    refuse(
        (own, f"speculation and the option {' and '.join(own)} say the same: write one of them"),
        (not known, f"{title} has no speculative decoding here: leave `speculation` out"),
        (asked.method not in adapter.speculates, f"{title} has no speculation by {asked.method} here; it has {known}"),
        (
            asked.acceptance is not None and asked.method not in adapter.forces_acceptance,
            f"{title} cannot force the acceptance of {asked.method}: leave `acceptance` out",
        ),
    )


def proxy_argv(python: Path | None, site: Site, protocol: str, members: Sequence[Member]) -> tuple[str, ...]:
    """The command of our proxy in front of members; those named prefill-... are its prefill servers, all others decode."""
    argv = [str(python or "python3"), str(WORKERS / "pd_proxy.py"), *site.address, "--protocol", protocol]
    for member in members:
        argv += ["--prefill" if member.name.startswith("prefill") else "--decode", f"http://{site.host}:{member.port}"]
    return tuple(argv)


# -- the interface ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traits:
    """What the harness must know about a deployment before it starts."""

    gpus: int
    """Devices it takes."""
    extra_ports: int = 0
    """Free ports that `launch` needs in Site.ports, besides the one that requests go to."""
    protocol: ProtocolName = "openai"
    """Which protocol its requests and streams use."""
    takes_ids: bool = True
    """Prompts are sent as token ids, else as text."""
    forces_length: bool = True
    """Every request produces exactly output_tokens; else it may stop earlier, and the result says so."""
    random_weights: bool = False
    """The engine generates its weights (a dummy load format). A random router uses only a few experts, so such a Mixture-of-Experts cell
    is never ranked unless `forces_routing`."""
    forces_routing: bool = False
    """Tokens are spread over the experts by a rule instead of by the router."""
    uneven_routing: str = ""
    """Why that rule does not use experts, and the ranks that hold them, evenly, as a clause; such a cell is never ranked."""


class Adapter(ABC):
    """One engine. Members are grouped by when the harness uses them; only `find` and `launch` have no default."""

    # -- what is supported: read when a scenario is read ---------------------------------------------------------------------------

    name: ClassVar[str]
    """The file's name."""
    title: ClassVar[str]
    """The engine's name as its own project writes it."""
    options: ClassVar[type] = NoOptions
    """A frozen dataclass with defaults: the only keys that a scenario may write under `options`."""
    precisions: ClassVar[frozenset[str] | None] = None
    """None: unknown (attached servers)."""
    checkpoint_format: ClassVar[Literal["gguf", "safetensors", "none"]] = "none"
    casts: ClassVar[bool] = True
    """Whether unquantized safetensors are loaded in any of f16, bf16 and f32; False: as they are stored."""
    speculates: ClassVar[frozenset[SpeculationMethod]] = frozenset()
    """Methods of `Deployment.speculation` that `launch` maps; a deployment with any other is refused."""
    forces_acceptance: ClassVar[frozenset[SpeculationMethod]] = frozenset()
    """Those of them for which the engine can force how many proposed tokens are accepted."""
    takes_loras: ClassVar[bool] = False
    """Whether `launch` loads `Site.loras`, and `lora_fields` sends requests to them."""
    speculation_options: ClassVar[tuple[str, ...]] = ()
    """Options that say the same in the engine's own words; with `speculation` they are refused."""
    runtimes: ClassVar[tuple[Runtime, ...]] = ("process",)
    apis: ClassVar[tuple[str, ...]] = ("completions", "chat")

    def traits(self, deployment: Deployment) -> Traits:
        """What the harness must know about a deployment. Default: every rank takes a device, and all else as in `Traits`."""
        return Traits(gpus=deployment.parallelism.devices)

    def check(self, deployment: Deployment) -> None:
        """Refuse what the engine cannot express, whether it is installed or not. Raises Unsupported. Default: no parallelism."""
        if deployment.parallelism != Parallelism():
            raise Unsupported(f"{self.title} has no tensor, pipeline, data or expert parallelism here")

    def check_loads(self, deployment: Deployment, loads: Sequence[Load]) -> None:
        """Refuse loads that one start of the engine cannot serve together. Raises Unsupported.

        Default: a server takes every load whose route its protocol has; the requests of an in-process batch have one output length.
        """
        protocol, offline = self.traits(deployment).protocol, deployment.runtime == "in-process"
        for load in loads:
            refuse(
                (load.api not in PROTOCOLS[protocol], f"the {protocol} protocol has no {load.api} route; write protocol: openai"),
                (offline and load.output_length is None, "an in-process batch has one output length: write a number for output_tokens"),
            )

    # -- tuning: `bench tune` ------------------------------------------------------------------------------------------------------

    def tunables(self, deployment: Deployment, room: Room) -> Sequence[Tunable]:
        """The options of this deployment that may make it faster, each with the values worth a try. Default: none.

        Combinations that `check` refuses are left out, and so are those that do not fit the memory. An option that changes the output is
        not `exact`.
        """
        return ()

    # -- installation: `bench engines` and the start of a run ----------------------------------------------------------------------

    requirements: ClassVar[tuple[str, ...]] = ()
    """Exact pins (`package==version`) for `bench engines install`; empty: nothing to install. The file <name>.constraints.txt next to the
    adapter pins their dependencies."""
    variants: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Other sets of pins for other machines: `bench engines install <name>:<variant>`, with <name>-<variant>.constraints.txt."""
    unwanted: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """<name> or <name>-<variant> -> dependencies that are uninstalled afterwards: their only build does not fit, and fails when another
    package imports it."""

    @abstractmethod
    def find(self, python: Path | None) -> Sequence[Install]:
        """Every way in which the engine is installed, best first.

        python: the interpreter of the environment that `bench engines install` made, if there is one. May read package metadata and PATH;
        starts no process and imports no engine.
        """

    def choose(self, deployment: Deployment, installs: Sequence[Install]) -> Install:
        """The install that serves this deployment. Default: the first. Raises NotInstalled when none can."""
        if not installs:
            raise NotInstalled(f"{self.title} is not installed here")
        return installs[0]

    # -- launch --------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        """The commands that serve the deployment, or the worker that batches where the runtime is in-process. Pure. Raises Unsupported."""

    ready_paths: ClassVar[tuple[str, ...]] = ("/health",)
    """Where to look for readiness: the first path that the server has counts."""

    def readiness(self, get: Get) -> Readiness:
        """Called until it returns ready. Default: one of `ready_paths` answers 200 = ready, 503 or a refused connection = loading."""
        status = next((found for path in self.ready_paths if (found := get(path).status) != 404), 404)
        return "ready" if status == 200 else "loading" if status in (0, 503) else "broken"

    # -- requests: once per load ---------------------------------------------------------------------------------------------------

    def dialect(self, deployment: Deployment, load: Load) -> Dialect:
        """How requests and streams are spelled. Default: that of Traits.protocol for the load's API."""
        return PROTOCOLS[self.traits(deployment).protocol][load.api]

    def request_fields(self, deployment: Deployment, load: Load) -> Mapping[str, JSON]:
        """Fields added to every request: forced length, sampling, usage, cache switches. Only fields that the engine is known to take."""
        return {}

    def lora_fields(self, deployment: Deployment, name: str) -> Mapping[str, JSON]:
        """Fields of a request to the LoRA adapter of this name. Default: it is named as the model."""
        return {"model": name}

    # -- replies: after the start, and around every load ---------------------------------------------------------------------------

    def resolved(self, get: Get) -> Resolved:
        """The engine's own configuration. Default: it does not report one."""
        return Resolved()

    def counters(self, get: Get) -> Mapping[str, float]:
        """The engine's counters under the names of TOTALS and GAUGES; {} where it has none.

        Called before and after a load. During the load another process fetches the same paths once a second, and this method reads those
        replies afterwards, so the result must depend only on what `get` returns.
        """
        return {}

    # -- quality: once per deployment, where a scenario asks for it -----------------------------------------------------------------

    scores: ClassVar[Scoring | None] = None
    """How its server scores given tokens, one of `enginebench.dialects.scoring`; its worker then has `score`. None: it cannot."""

    def scoring(self, deployment: Deployment) -> Scoring:
        """How the log-probabilities of given tokens are asked for. Raises Unsupported with the reason why they cannot be."""
        if self.scores is None:
            raise Unsupported(f"{self.title} does not report the probability of tokens that it is given")
        if deployment.options.get("disaggregated"):
            raise Unsupported("a decode server gets the KV of a prompt and not its logits: a disaggregated pair scores no prompt")
        return scoring.in_process(self.scores) if deployment.runtime == "in-process" else self.scores
