"""The fake engine that ships with enginebench: a real server on a real socket whose token times are known beforehand.

It knows no model. It proves the harness: on a machine without a GPU, in tests, and wherever a figure looks too odd to be true.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from enginebench import __version__
from enginebench.adapter import (
    JSON,
    PROTOCOLS,
    WORKERS,
    Adapter,
    Deployment,
    Dialect,
    Get,
    Install,
    Launch,
    Load,
    Member,
    Parallelism,
    ProtocolName,
    Resolved,
    Site,
    Unsupported,
    options_as,
    prometheus_totals,
)


@dataclass(frozen=True)
class FakeOptions:
    """Its speed, its manners and its faults; 0 or False switches a fault off."""

    ttft_ms: float = 20.0
    """From the last byte of a request to its first token, with a free slot."""
    prefill_ms_per_token: float = 0.0
    """Added to that for each prompt token."""
    itl_ms: float = 5.0
    """From one token to the next."""
    tick_ms: float = 0.0
    """All streams in lockstep: one event of each leaves at every tick, whatever itl_ms says; 0: each stream on its own."""
    batch_events: int = 0
    """Events in one write, when the last of them is due; with itl_ms 0 as fast as they can be sent."""
    tokens_per_event: int = 1
    """Tokens in one event of the stream."""
    protocol: ProtocolName = "openai"
    """Whose routes and streams: OpenAI's, or Ollama's, SGLang's or TGI's own."""
    reasoning_tokens: int = 0
    """Tokens of reasoning before the answer, where the protocol has it."""
    tool_call: bool = False
    """Chat: the answer is a tool call."""
    incremental: bool = False
    """SGLang's protocol: each event has only the new text, not all so far."""
    close: bool = False
    """Close the connection after every response, and say so."""
    role_chunk: bool = False
    """Chat: an event with the role and no text comes first."""
    no_done: bool = False
    """Streams end without [DONE]."""
    usage: Literal["separate", "choices", "continuous", "none"] = "separate"
    """OpenAI's protocol: where token counts are: in an event of their own, beside the last text, beside every text, nowhere."""
    pings: bool = False
    """Comments before the first token and between events."""
    slots: int = 0
    """Requests served at once, the others queue; 0: no limit."""
    stall_after: int = 0
    """Pause after this many tokens, for stall_s seconds."""
    stall_s: float = 1.0
    """Length of that pause in seconds."""
    burst: bool = False
    """All tokens at once, when the last one is due."""
    short_output: int = 0
    """Stop after this many tokens, whatever was asked."""
    cached_tokens: int = 0
    """Prompt tokens to report as served from a prefix cache."""
    load_s: float = 0.0
    """Seconds of 503 after the start."""
    never_ready: bool = False
    """Answer 503 on /health for ever."""
    slow_accept_s: float = 0.0
    """Seconds before the first request of a new connection is read."""
    malformed: Literal["no", "json", "utf8", "chunk"] = "no"
    """What the second event of a stream breaks."""
    cut_after: int = 0
    """Close the connection after this many tokens."""
    in_stream_error: int = 0
    """Send an error event after this many tokens."""
    crash_after: int = 0
    """The process exits when this many requests have been answered and another one comes."""
    http_error: int = 0
    """Answer every generation with this status."""
    exit_at_start: bool = False
    """Exit with an error before listening."""
    disaggregated: bool = False
    """One server for prefill, one for decode and a proxy, in vLLM's manner, in place of one server."""


def flags(options: FakeOptions) -> tuple[str, ...]:
    """The worker's flags for everything that is not at its default; names are the same but for the dashes."""
    argv: list[str] = []
    for option in fields(options):
        value = getattr(options, option.name)
        if value != option.default and option.name != "disaggregated":  # how many servers there are is nothing that one of them knows
            argv.append("--" + option.name.replace("_", "-"))
            argv += [] if value is True else [str(value)]
    return tuple(argv)


def members(deployment: Deployment) -> tuple[str, ...]:
    """The servers behind the proxy; none where there is one server and no proxy."""
    if options_as(FakeOptions, deployment).disaggregated:
        return ("prefill", "decode")
    replicas = deployment.parallelism.dp_replicas
    return tuple(f"replica-{i}" for i in range(1, replicas + 1)) if replicas > 1 else ()


class Fake(Adapter):
    name = "fake"
    title = "fake engine"
    checkpoint_format = "none"
    precisions = frozenset({"none"})
    apis = ("completions", "chat")
    options = FakeOptions
    length_control = "exact"

    def find(self, python: Path | None) -> Sequence[Install]:
        return (Install(variant="builtin", version=__version__, python=Path(sys.executable)),)

    def check(self, deployment: Deployment) -> None:
        options, replicas = options_as(FakeOptions, deployment), deployment.parallelism.dp_replicas
        if deployment.parallelism != Parallelism(dp_replicas=replicas):
            raise Unsupported(f"{self.title} has no parallelism but whole replicas (dp_replicas)")
        if options.disaggregated and replicas > 1:
            raise Unsupported(f"{self.title} has one prefill and one decode server: no replicas of them")
        if options.disaggregated and options.protocol != "openai":
            raise Unsupported(f"only OpenAI's protocol is disaggregated, not {options.protocol}'s")

    def gpus(self, deployment: Deployment) -> int:
        return max(1, len(members(deployment)))

    def extra_ports(self, deployment: Deployment) -> int:
        return len(members(deployment))

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        told = ("--model", deployment.model, "--context", str(deployment.max_context), *flags(options_as(FakeOptions, deployment)))
        worker = (str(install.python), str(WORKERS / "fake_worker.py"), "--host", site.host)
        if not (names := members(deployment)):
            return Launch((*worker, "--port", str(site.port), *told), deployment.model, ready_timeout_s=30.0)
        started = [Member(name, (*worker, "--port", str(p), *told), p) for name, p in zip(names, site.ports, strict=True)]
        proxy = [str(install.python), str(WORKERS / "pd_proxy.py"), "--host", site.host, "--port", str(site.port)]
        proxy += ["--protocol", "vllm" if "prefill" in names else "plain"]
        for member in started:
            proxy += ["--prefill" if member.name == "prefill" else "--decode", f"http://{site.host}:{member.port}"]
        return Launch(tuple(proxy), deployment.model, ready_timeout_s=30.0, members=tuple(started))

    def resolved(self, get: Get) -> Resolved:
        props = get("/props").json()
        if not isinstance(props, dict):
            return Resolved()
        model, context, slots = props.get("model"), props.get("context"), props.get("slots")
        return Resolved(
            version=__version__,
            model=model if isinstance(model, str) else None,
            precision="none",
            context=context if isinstance(context, int) else None,
            slots=slots if isinstance(slots, int) and slots else None,
            prefix_cache=False,
            raw={"/props": props},
        )

    def check_loads(self, deployment: Deployment, loads: Sequence[Load]) -> None:
        protocol = options_as(FakeOptions, deployment).protocol
        for load in loads:
            if load.api not in PROTOCOLS[protocol]:
                raise Unsupported(f"the {protocol} protocol has no {load.api} route")

    def takes_ids(self, deployment: Deployment) -> bool:
        return options_as(FakeOptions, deployment).protocol in ("openai", "sglang")

    def dialect(self, deployment: Deployment, load: Load) -> Dialect:
        return PROTOCOLS[options_as(FakeOptions, deployment).protocol][load.api]

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        if options_as(FakeOptions, deployment).protocol != "openai":
            return {}
        return {"stream_options": {"include_usage": True}, "ignore_eos": True}

    def counters(self, get: Get) -> Mapping[str, float]:
        totals = prometheus_totals(get("/metrics").body.decode(errors="replace"))
        names = ("prompt_tokens", "cached_tokens", "output_tokens")
        return {name: totals[f"fake_{name}_total"] for name in names if f"fake_{name}_total" in totals}
