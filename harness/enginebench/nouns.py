"""The nouns of a comparison, as frozen plain data: deployment, load, cell, and what one request left behind.

Nothing here does anything: no I/O, no engine, no clock. A deployment with its loads is plain data so that it can be sent to
another process or another host. Ids are hashes of canonical JSON in which fields at their default are left out, so a field
added later (with a default) does not change the id of any older cell.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from enginebench.container import Container

if TYPE_CHECKING:
    from pydantic import JsonValue

    JSON: TypeAlias = JsonValue
else:
    JSON = Any  # the load generator's processes start in a quarter of the time without pydantic

Runtime: TypeAlias = Literal["process", "docker", "attach", "in-process"]
Status: TypeAlias = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Parallelism:
    """How a deployment is spread over devices. The engines' words differ; these five never do.

    tp: ranks that share each layer. pp: pipeline stages. dp_replicas: whole copies (extra devices). attention_dp: attention
    replicated *inside* tp (no extra devices). ep: ranks that share the experts of a layer.
    """

    tp: int = 1
    pp: int = 1
    dp_replicas: int = 1
    attention_dp: int = 1
    ep: int = 1


@dataclass(frozen=True)
class Deployment:
    """Whatever changes this needs a new server: engine, weights, precision, spread, engine options, runtime.

    checkpoint is the reference as the scenario resolves it for this engine and precision (see `enginebench.checkpoints`).
    max_context (tokens of prompt + output of one request) and max_concurrency (requests in flight) are what the server must
    be able to hold; plan() derives them from the loads when the scenario does not say.
    """

    engine: str
    model: str
    precision: str
    checkpoint: str
    runtime: Runtime = "process"
    parallelism: Parallelism = Parallelism()
    max_context: int = 2048
    max_concurrency: int = 1
    options: Mapping[str, JSON] = field(default_factory=dict)
    url: str | None = None
    """attach: base URL of the server that is already up, e.g. http://127.0.0.1:8000 (without /v1)."""
    api_key_env: str | None = None
    """attach: the *name* of the environment variable that holds the key; its value is never stored."""
    ready_timeout_s: float | None = None
    """How long the engine may take to become ready; None: what its adapter thinks."""
    label: str | None = None
    """A name for tables; None: engine, model and what varies."""
    container: Container = field(default_factory=Container)
    """docker: how the engine is boxed in."""

    @property
    def inside(self) -> Deployment:
        """What an adapter is shown: to the engine in a container it is a process like any other."""
        return dataclasses.replace(self, runtime="process", container=Container()) if self.runtime == "docker" else self


Length: TypeAlias = int | str
"""Tokens: a number, a distribution such as 'uniform(64,256)' (see `enginebench.workload.lengths`), or 'data': as the data set has it."""


@dataclass(frozen=True)
class Load:
    """What is sent to a deployment, and when.

    Arrivals: a *closed loop* keeps `concurrency` requests in flight, the next one sent the moment one ends. With `rate` (requests/s)
    or `trace` it is an *open loop*: requests are sent when they are due, whatever the server does, and `concurrency` is the most
    that may be in flight then (0: no limit). Conversations of `turns` take the place of single requests in both: the next turn
    goes out `think_s` after the answer to the one before.

    The load ends when `requests` have been sent or `duration_s` has passed, whichever is first. warmup_requests are sent before
    and never measured.
    """

    concurrency: int = 1
    rate: float | None = None
    rate_to: float | None = None
    """Where the rate ends, if it rises or falls linearly over the load."""
    arrivals: Literal["poisson", "gamma", "constant"] = "poisson"
    """Gaps between the due times of an open loop: exponential, gamma-distributed with shape `burstiness`, or all the same."""
    burstiness: float = 1.0
    """Shape of the gamma distribution; 1 is Poisson, below 1 requests come in bursts."""
    ramp_s: float = 0.0
    """Closed loop: the streams start one after another, spread over so many seconds."""
    trace: str | None = None
    """File with recorded arrivals and lengths; replaces rate, input_tokens and output_tokens."""
    time_scale: float = 1.0
    """Factor on a trace's times: 0.5 replays it twice as fast."""
    input_tokens: Length = 128
    output_tokens: Length = 64
    lengths: str | None = None
    """Pairs of input+output tokens to draw from, 'IN+OUT[*WEIGHT], ...'; replaces input_tokens and output_tokens."""
    requests: int = 16
    """With a duration, the most that may be sent; 0: as many as fit into it."""
    duration_s: float | None = None
    warmup_requests: int = 1
    prompts: str = "random"
    """'random', 'text', or a data set: 'sharegpt:FILE', 'jsonl:FILE[#COLUMN]', 'hf:ORG/NAME[:CONFIG][/SPLIT][#COLUMN]'."""
    prefix_groups: int = 0
    """Number of groups whose prompts share their first prefix_tokens (counted within input_tokens); 0: nothing is shared."""
    prefix_tokens: int = 0
    turns: int = 1
    think_s: float = 0.0
    api: Literal["completions", "chat"] = "completions"
    prefix_cache: Literal["cold", "allowed"] = "cold"
    temperature: float = 0.0
    seed: int = 0
    timeout_s: float = 600.0

    @property
    def open_loop(self) -> bool:
        """Whether requests are sent when they are due, whatever the server does."""
        return self.rate is not None or self.trace is not None

    @property
    def level(self) -> float:
        """How heavy the load is: streams of a closed loop, requests/s of an open one, replay speed of a trace."""
        return self.rate if self.rate is not None else 1 / self.time_scale if self.trace is not None else self.concurrency

    @property
    def level_text(self) -> str:
        """'1 stream', '64 streams', '2.5 req/s', '1 to 8 req/s', 'mooncake.jsonl x2' (a trace, twice as fast)."""
        if self.rate is not None:
            return f"{self.rate:g} req/s" if self.rate_to is None else f"{self.rate:g} to {self.rate_to:g} req/s"
        if self.trace is not None:
            return f"{self.trace.rpartition('/')[2]} x{1 / self.time_scale:g}"
        return f"{self.concurrency} stream{'s' if self.concurrency != 1 else ''}"

    @property
    def shape_text(self) -> str:
        """'128 + 64 tokens', 'uniform(64,256) + 64 tokens', '128+64, 2048+256 tokens'."""
        if self.trace is not None:
            return "the trace's lengths"
        return f"{self.lengths or f'{self.input_tokens} + {self.output_tokens}'} tokens"


@dataclass(frozen=True)
class Cell:
    """One point of the sweep: a deployment under a load, once. Its id names its record."""

    deployment: Deployment
    load: Load
    repeat: int = 0

    @cached_property
    def id(self) -> str:
        return fingerprint({"deployment": canonical(self.deployment), "load": canonical(self.load), "repeat": self.repeat})

    @cached_property
    def launch_id(self) -> str:
        """The server start that this cell needs; cells with the same launch_id share one launch."""
        return fingerprint({"deployment": canonical(self.deployment), "repeat": self.repeat})


@dataclass(slots=True)
class Sample:
    """One request as the client saw it, raw. All times are `time.monotonic_ns()` of the client; every metric is derived later.

    event_ns[i] is when the i-th *output* event arrived (text, reasoning or token ids; never headers, a role delta or a
    keep-alive); event_tokens[i] the tokens it carried, -1 when the engine did not say; event_chars[i] its characters.
    input_tokens, output_tokens and cached_tokens are what the *server* counted (None: it did not say).
    """

    index: int
    asked_input_tokens: int
    asked_output_tokens: int
    due_ns: int = 0
    """When the arrival process wanted the request sent; equals sent_ns in a closed loop without delay."""
    sent_ns: int = 0
    """Just before the request's bytes are handed to the socket of a connection that is already open."""
    headers_ns: int = 0
    """Arrival of the response headers; 0 if none came. Never used as TTFT."""
    end_ns: int = 0
    """The response is complete, or the error is known."""
    event_ns: array[int] = field(default_factory=lambda: array("q"))
    event_tokens: array[int] = field(default_factory=lambda: array("i"))
    event_chars: array[int] = field(default_factory=lambda: array("i"))
    first_answer_ns: int = 0
    """Arrival of the first output event that is answer and not reasoning; 0 if none came."""
    conversation: int = -1
    """Which conversation the request is a turn of; -1: none."""
    turn: int = 0
    """Its place in that conversation, from 0."""
    outcome: str = "ok"
    """'ok', or an `enginebench.loadgen` error class such as 'http_status', 'timeout', 'cut', 'malformed', 'in_stream_error'."""
    error: str | None = None
    status_code: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    local_tokens: int | None = None
    """Output tokens by the checkpoint's own tokenizer, from the text; counted only where the server does not count."""
    finish_reason: str | None = None
    server_timings: Mapping[str, float] | None = None
    """The engine's own figures for this request under its own names, as it sent them."""
    text: str | None = None
    """Kept only when the caller asks for it (parity, priming); a measured sample does not hold its text."""


def plain(value: Any) -> JSON:
    """Dataclasses, mappings and sequences as plain JSON data, fields in declaration order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | array):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def plain_object(value: Any) -> dict[str, JSON]:
    """A dataclass or mapping as a JSON object."""
    data = plain(value)
    if not isinstance(data, dict):
        raise TypeError(f"a {type(value).__name__} is no JSON object")
    return data


def canonical(value: Any) -> dict[str, JSON]:
    """A dataclass as plain JSON without the fields that equal their default: what ids are hashed from."""
    out: dict[str, JSON] = {}
    for name, default in _defaults(type(value)):  # type: ignore[arg-type]  # mypy doubts that a class is hashable
        item = getattr(value, name)
        if item != default:
            out[name] = canonical(item) if dataclasses.is_dataclass(item) else plain(item)
    return out


@cache  # a plan of 10,000 cells asks 30,000 times
def _defaults(kind: type) -> tuple[tuple[str, Any], ...]:
    """Each field of a dataclass with its default, MISSING where it has none."""
    return tuple(
        (f.name, f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default) for f in dataclasses.fields(kind)
    )


def fingerprint(data: JSON | dict[str, JSON]) -> str:
    """First 12 hex digits of SHA-256 over canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
