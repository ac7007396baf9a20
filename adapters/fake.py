"""The fake engine that ships with enginebench: a real server on a real socket, without a model, whose token times are known in advance."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import enginebench.adapter as eb
from enginebench import __version__

COUNTERS = {name: f"fake_{name}_total" for name in ("prompt_tokens", "cached_tokens", "output_tokens")}


@dataclass(frozen=True)
class FakeOptions:
    """Its speed, its streams and its faults; 0 or False switches a fault off."""

    ttft_ms: float = 20.0
    """From the last byte of a request to its first token, with a free slot."""
    prefill_ms_per_token: float = 0.0
    """Added to ttft_ms for each prompt token."""
    itl_ms: float = 5.0
    """From one token to the next."""
    tick_ms: float = 0.0
    """All streams in lockstep: one event of each is sent at every tick, and itl_ms is ignored; 0: each stream on its own."""
    batch_events: int = 0
    """Events in one write, when the last of them is due; with itl_ms 0 as fast as they can be sent."""
    tokens_per_event: int = 1
    """Tokens in one event of the stream."""
    protocol: eb.ProtocolName = "openai"
    """Routes and streams: OpenAI's, or Ollama's, SGLang's or TGI's own."""
    reasoning_tokens: int = 0
    """Tokens of reasoning before the answer, where the protocol has it."""
    tool_call: bool = False
    """Chat: the answer is a tool call."""
    incremental: bool = False
    """SGLang's protocol: each event has only the new text, not the whole text so far."""
    close: bool = False
    """Close the connection after every response, with Connection: close."""
    role_chunk: bool = False
    """Chat: an event with the role and no text comes first."""
    no_done: bool = False
    """Streams end without [DONE]."""
    usage: Literal["separate", "choices", "continuous", "none"] = "separate"
    """OpenAI's protocol: token counts are in a separate event, in that of the last text, in every event with text, or nowhere."""
    pings: bool = False
    """Comments before the first token and between events."""
    slots: int = 0
    """Requests served at once; others queue. 0: no limit."""
    stall_after: int = 0
    """Pause after this many tokens, for stall_s seconds."""
    stall_s: float = 1.0
    """Length of that pause in seconds."""
    burst: bool = False
    """All tokens at once, when the last one is due."""
    short_output: int = 0
    """Stop after this many tokens, whatever the request asks for."""
    cached_tokens: int = 0
    """Prompt tokens to report as served from a prefix cache."""
    load_s: float = 0.0
    """Seconds of 503 after the start."""
    never_ready: bool = False
    """Always answer 503 on /health."""
    slow_accept_s: float = 0.0
    """Seconds before the first request of a new connection is read."""
    malformed: Literal["no", "json", "utf8", "chunk"] = "no"
    """What is malformed in the second event of a stream."""
    cut_after: int = 0
    """Close the connection after this many tokens."""
    in_stream_error: int = 0
    """Send an error event after this many tokens."""
    crash_after: int = 0
    """The process exits when another request follows after this many."""
    http_error: int = 0
    """Answer every generation with this status."""
    exit_at_start: bool = False
    """Exit with an error before listening."""
    loss: float = 0.0
    """Nats by which every token of a prompt is less probable than to the fake engine without it; negative: it has no number."""
    disaggregated: bool = False
    """One server for prefill, one for decode and a proxy with vLLM's protocol, in place of one server."""


def worker_flags(options: FakeOptions) -> list[str]:
    """The worker's flags for every option that is not at its default; the names are the same."""
    changed = {option.name: getattr(options, option.name) for option in fields(options) if getattr(options, option.name) != option.default}
    changed.pop("disaggregated", None)  # one server does not know how many there are
    return eb.flags_of({"--" + name.replace("_", "-"): value for name, value in changed.items()})


def rank_flags(site: eb.Site, rank: int) -> list[str]:
    """How a rank finds the others."""
    head = site.nodes[0]
    return eb.flags_of({"--nodes": len(site.nodes), "--node-rank": str(rank), "--head": f"{head.address}:{head.ports[0]}"})


def members(deployment: eb.Deployment) -> tuple[str, ...]:
    """The servers behind the proxy; empty where there is one server and no proxy."""
    if eb.options_as(FakeOptions, deployment).disaggregated:
        return ("prefill", "decode")
    replicas = deployment.parallelism.dp_replicas
    return tuple(f"replica-{i}" for i in range(1, replicas + 1)) if replicas > 1 else ()


class Fake(eb.Adapter):
    name = "fake"
    title = "fake engine"
    apis = ("completions", "chat", "responses", "messages")
    precisions = frozenset({"none"})
    spans_nodes = True
    options = FakeOptions
    scores = eb.scoring.prompt_logprobs()

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        protocol, servers = eb.options_as(FakeOptions, deployment).protocol, len(members(deployment))
        devices, ports = max(deployment.parallelism.devices, servers), servers or (deployment.nodes > 1)
        return eb.Traits(devices, extra_ports=int(ports), protocol=protocol, takes_ids=protocol in ("openai", "sglang"))

    def check(self, deployment: eb.Deployment) -> None:
        options, replicas = eb.options_as(FakeOptions, deployment), deployment.parallelism.dp_replicas
        tp = deployment.parallelism.tp if deployment.nodes > 1 else 1  # over several nodes: a rank on each
        others = deployment.parallelism != eb.Parallelism(tp, dp_replicas=replicas)
        eb.refuse(
            (others, f"{self.title} has no parallelism but whole replicas (dp_replicas), and tp over several nodes"),
            (tp > 1 and members(deployment), f"{self.title} has replicas or ranks on several nodes, not both"),
            (options.disaggregated and replicas > 1, f"{self.title} has one prefill and one decode server: no replicas of them"),
            (options.disaggregated and options.protocol != "openai", f"only OpenAI's protocol is disaggregated, not {options.protocol}'s"),
        )

    def tunables(self, deployment: eb.Deployment, room: eb.Room) -> Sequence[eb.Tunable]:
        return (
            eb.Tunable("itl_ms", (2.0, 10.0), default=5.0),
            eb.Tunable("tokens_per_event", (2, 4), default=1),
            eb.Tunable("close", (True,), default=False),
            *room.degrees("dp_replicas"),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        return (eb.Install(variant="builtin", version=__version__, python=Path(sys.executable)),)

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        self.check(deployment)
        flags = worker_flags(eb.options_as(FakeOptions, deployment))
        worker = (str(install.python), str(eb.WORKERS / "fake_worker.py"))
        model = ("--model", deployment.model, "--context", str(deployment.max_context), *flags)
        if not (names := members(deployment)):
            first = (*worker, *site.address, *model)
            if not site.nodes:
                return eb.Launch(first, deployment.model, ready_timeout_s=30.0)
            ranks = eb.ranks_of(site, lambda rank, _: ((*worker, "--port", "0", *rank_flags(site, rank)), {}))
            return eb.Launch((*first, *rank_flags(site, 0)), deployment.model, ready_timeout_s=30.0, members=ranks)
        servers = []
        for place, name in enumerate(names):
            node = place * deployment.nodes // len(names)
            there = site.on(node)
            argv = (*worker, *there.address_at(there.ports[place]), *model)
            servers.append(eb.Member(name, argv, there.ports[place], node=node))
        proxy = eb.proxy_argv(install.python, site, "vllm" if "prefill" in names else "plain", servers)
        return eb.Launch(proxy, deployment.model, ready_timeout_s=30.0, members=tuple(servers))

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        if self.traits(deployment).protocol != "openai":
            return {}
        return {"stream_options": {"include_usage": True}, "ignore_eos": True}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        props = eb.Fields(get("/props").json())
        if not props.value:
            return eb.Resolved()
        return eb.Resolved(
            version=__version__,
            model=props.text("model"),
            precision="none",
            context=props.whole("context"),
            slots=props.whole("slots") or None,
            prefix_cache=False,
            raw={"/props": props.value},
        )

    def counters(self, get: eb.Get) -> Mapping[str, float]:
        return eb.renamed(eb.prometheus_totals(get("/metrics").text), COUNTERS)

    def scoring(self, deployment: eb.Deployment) -> eb.Scoring:
        protocol = eb.options_as(FakeOptions, deployment).protocol
        eb.refuse((protocol != "openai", f"the fake engine scores tokens by OpenAI's protocol only, not by {protocol}'s"))
        return super().scoring(deployment)
