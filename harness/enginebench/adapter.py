"""The interface between enginebench and an engine: one `Adapter` subclass in adapters/, in a file or in a folder of files.

An adapter decides and translates; it does no I/O. It says what an engine supports, turns a deployment into commands, environment and
files, says when the engine is ready, spells requests, and finds the engine's counters and resolved configuration. The harness starts
processes, opens sockets, keeps time and judges. Adapters import only this module; the harness never imports an engine. Code that must run
inside the engine's environment is in adapters/workers/<engine>_worker.py and imports only the standard library and that engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from enginebench.domain import JSON, Deployment, Load, Parallelism, PrefixRule, Runtime, Speculation
from enginebench.domain.disaggregated import PrefillDecode, check_disaggregated, servers_of
from enginebench.domain.launch import Launch, Member, Node, Site
from enginebench.domain.precisions import GGUF_PRECISIONS, TORCH_DTYPES, from_torch
from enginebench.domain.refusals import NotInstalled, Unsupported, check_quantization, holding, refuse
from enginebench.domain.speculation import SpeculationMethod
from enginebench.domain.tuning import Room, Tunable
from enginebench.inputs.engine_options import (
    BatchingOptions,
    NoOptions,
    declared_flags,
    flags_of,
    on_off,
    option,
    options_as,
    reported_options,
    spread_flags,
)
from enginebench.machine.folders import resource_dir
from enginebench.machine.installs import Install, find_package, installed_packages, installed_version, with_package

__all__ = [
    "CONTINUOUS_USAGE", "GAUGES", "GGUF_PRECISIONS", "JSON", "NEUTRAL_SAMPLING", "PROTOCOLS", "TORCH_DTYPES", "TOTALS", "WORKERS",
    "Adapter", "BatchingOptions", "Deployment", "Dialect", "Difference", "Event", "Fields", "Get", "Install", "Launch", "Load", "Member",
    "NoOptions", "Node", "NotInstalled", "OpenAIChat", "OpenAICompletions", "Parallelism", "PrefillDecode", "PrefixRule", "ProtocolName",
    "Readiness", "Reply", "Resolved", "Room", "Runtime", "Scoring", "Site", "Speculation", "SpeculationMethod", "Traits", "Tunable",
    "Unsupported", "accepted_at", "accepted_per_position", "as_list", "as_object", "check_disaggregated", "check_quantization",
    "declared_flags", "find_package", "flags_of", "from_torch", "given", "holding", "installed_packages", "installed_version", "on_off",
    "only", "option", "options_as", "prometheus_labels", "prometheus_mean", "prometheus_totals", "proxy_argv", "ranks_of", "refuse",
    "renamed", "reported_options", "scoring", "servers_of", "spread_flags", "with_package", "without_secrets",
]  # fmt: skip

WORKERS = resource_dir("adapters") / "workers"
"""Scripts that run inside an engine's environment."""

NEUTRAL_SAMPLING: Mapping[str, JSON] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""Fields that switch the engine's own sampling defaults off."""
CONTINUOUS_USAGE: Mapping[str, JSON] = {"include_usage": True, "continuous_usage_stats": True}
"""stream_options that put usage into every event: an event holds whatever one engine step made, and usage says how many tokens."""

Readiness = Literal["loading", "ready", "broken"]


def proxy_argv(python: Path | None, site: Site, protocol: str, members: Sequence[Member]) -> tuple[str, ...]:
    """The command of our proxy in front of members; those named prefill-... are its prefill servers, all others decode."""
    argv = [str(python or "python3"), str(WORKERS / "pd_proxy.py"), *site.address, "--protocol", protocol]
    for member in members:
        argv += ["--prefill" if member.name.startswith("prefill") else "--decode", f"http://{site.on(member.node).host}:{member.port}"]
    return tuple(argv)


def ranks_of(site: Site, command: Callable[[int, Site], tuple[Sequence[str], Mapping[str, str]]]) -> tuple[Member, ...]:
    """The ranks of an engine on the nodes after the first: 'rank-1', ...; command: rank, and the site as of its node -> argv and env."""
    built = ((rank, *command(rank, site.on(rank))) for rank in range(1, len(site.nodes)))
    return tuple(Member(f"rank-{rank}", tuple(argv), 0, env, node=rank) for rank, argv, env in built)


@dataclass(frozen=True)
class Traits:
    """What the harness must know about a deployment before it starts."""

    gpus: int
    """Devices it takes."""
    extra_ports: int = 0
    """Free ports that `launch` needs in Site.ports, besides the one that requests go to; on each of several nodes as many."""
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
    spans_nodes: ClassVar[bool] = False
    """Whether `launch` maps Site.nodes: one server, or the members behind a proxy, on several machines."""
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

    def check_nodes(self, deployment: Deployment) -> None:
        """Refuse a deployment over several nodes that the engine cannot have, or that does not divide. Raises Unsupported."""
        nodes = deployment.nodes
        devices = self.traits(deployment.inside).gpus if nodes > 1 else 1
        refuse(
            (nodes > 1 and not self.spans_nodes, f"{self.title} serves from one node here: leave `nodes` out"),
            (
                nodes > 1 and deployment.runtime != "process",
                f"over several nodes {self.title} is started as processes: write runtime: process",
            ),
            (devices % nodes and nodes > 1, f"each node has an equal part: {nodes} nodes do not divide {devices} devices"),
        )

    def check_neutral(self, deployment: Deployment) -> None:
        """Refuse what a deployment asks for in neutral words and the members above do not claim; before `check`. Raises Unsupported."""
        asked, elsewhere, known = deployment.speculation, deployment.runtime != "process", ", ".join(sorted(self.speculates))
        refuse(
            (deployment.loras and not self.takes_loras, f"{self.title} serves no LoRA adapters here: leave `loras` out"),
            (deployment.loras and elsewhere, "LoRA adapters are loaded by servers that are started as processes: write runtime: process"),
        )
        if asked is None:
            return
        method, own = asked.method, [name for name in self.speculation_options if deployment.options.get(name)]
        forced = asked.acceptance is not None and method not in self.forces_acceptance
        refuse(
            (own, f"speculation and the option {' and '.join(own)} say the same: write one of them"),
            (not known, f"{self.title} has no speculative decoding here: leave `speculation` out"),
            (method not in self.speculates, f"{self.title} has no speculation by {method} here; it has {known}"),
            (forced, f"{self.title} cannot force the acceptance of {method}: leave `acceptance` out"),
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
