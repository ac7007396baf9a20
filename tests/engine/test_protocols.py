"""Every protocol through the real load generator: what is counted, what is answer, what is refused; and TLS, proxies, lockstep."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from enginebench.adapter import Deployment, Unsupported
from enginebench.dialects import PROTOCOLS, Dialect, PromptInput, ProtocolName
from enginebench.domain import JSON, Cell, ClosedLoop, Sample
from enginebench.engines.registry import load_file
from enginebench.loadgen import LoadResult, LoadSpec, Target, WireRequest, run_load
from enginebench.machine.folders import resource_dir
from enginebench.metrics.window import steady_window
from enginebench.records.cell import CellRecord
from enginebench.records.samples import Samples
from enginebench.runtime import http_get_url
from enginebench.validity import Context, judge

StartFake = Callable[..., Target]
Prompts = Callable[[int], PromptInput]
FAST = ("--ttft-ms", "5", "--itl-ms", "1")
TLS = Path(__file__).parent / "tls"
OPENAI = load_file(resource_dir("adapters") / "openai.py")
ROUTES = [(name, api) for name, apis in PROTOCOLS.items() for api in apis]
CHATS = [name for name, apis in PROTOCOLS.items() if "chat" in apis]


def wire(
    dialect: Dialect, count: int, *, tokens: int = 8, extra: Mapping[str, JSON] | None = None, prompts: Prompts | None = None
) -> list[WireRequest]:
    """`count` requests with prompts of their own."""
    requests = []
    for i in range(count):
        prompt = f"prompt {i}" if prompts is None else prompts(i)
        body = dialect.body(model="fake", prompt=prompt, output_tokens=tokens, temperature=0.0, seed=None, extra=extra or {})
        requests.append(WireRequest(i, dialect.path, json.dumps(body).encode(), 2, tokens))
    return requests


def load(target: Target, dialect: Dialect, requests: list[WireRequest], concurrency: int = 2) -> LoadResult:
    return run_load(LoadSpec(target, requests, concurrency, dialect, 5.0, keep_text=True))


def samples(target: Target, dialect: Dialect, **what: object) -> list[Sample]:
    """Two requests that must end well."""
    found = load(target, dialect, wire(dialect, 2, **what)).samples
    assert [s.outcome for s in found] == ["ok", "ok"], found[0].error
    return found


def fake(start: StartFake, protocol: ProtocolName, *flags: str) -> Target:
    return start(*FAST, "--protocol", protocol, *flags)


# -- what is heard -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "api"), ROUTES)
def test_every_event_is_heard_and_counted(start_fake: StartFake, protocol: ProtocolName, api: str) -> None:
    for s in samples(fake(start_fake, protocol, "--cached-tokens", "1"), PROTOCOLS[protocol][api]):
        assert len(s.event_ns) == len(s.event_tokens) == len(s.event_chars) == 8
        assert (s.output_tokens, s.finish_reason) == (8, {"responses": "max_output_tokens", "messages": "max_tokens"}.get(api, "length"))
        assert s.input_tokens is not None
        assert s.input_tokens > 0
        assert s.cached_tokens == (None if protocol == "tgi" else 1)
        assert s.first_answer_ns == s.event_ns[0]
        assert sum(s.event_chars) == len(s.text or "") > 8
        # Ollama counts at the end only, and OpenAI too unless it is asked for more.
        assert set(s.event_tokens) == ({1} if protocol in ("sglang", "tgi") else {-1})


def test_one_prompt_has_one_answer_by_every_protocol(start_fake: StartFake) -> None:
    targets = {name: fake(start_fake, name) for name in PROTOCOLS}
    answers = {name: [s.text for s in samples(targets[name], PROTOCOLS[name]["completions"])] for name in PROTOCOLS}
    answers["increments"] = [s.text for s in samples(fake(start_fake, "sglang", "--incremental"), PROTOCOLS["sglang"]["completions"])]
    assert len(set(map(tuple, answers.values()))) == 1, answers


@pytest.mark.parametrize("flags", [("--tokens-per-event", "3"), ("--incremental", "--tokens-per-event", "3")])
def test_sglang_says_how_many_tokens_an_event_holds(start_fake: StartFake, flags: tuple[str, ...]) -> None:
    dialect = PROTOCOLS["sglang"]["completions"]
    for s in samples(fake(start_fake, "sglang", *flags), dialect, prompts=lambda i: [i, 2, 3]):
        assert list(s.event_tokens) == [3, 3, 2]
        assert s.input_tokens == 3


def test_continuous_usage_counts_every_event(start_fake: StartFake) -> None:
    flags = ("--usage", "continuous", "--tokens-per-event", "3")
    for s in samples(fake(start_fake, "openai", *flags), PROTOCOLS["openai"]["completions"]):
        assert list(s.event_tokens) == [3, 3, 2]
        assert s.output_tokens == 8


@pytest.mark.parametrize("protocol", CHATS)
def test_the_first_answer_comes_after_the_reasoning(start_fake: StartFake, protocol: ProtocolName) -> None:
    target = fake(start_fake, protocol, "--reasoning-tokens", "5", "--role-chunk", "--pings")
    for s in samples(target, PROTOCOLS[protocol]["chat"]):
        assert (len(s.event_ns), s.output_tokens) == (8, 8)
        assert s.first_answer_ns == s.event_ns[5]


def test_an_answer_that_is_all_reasoning_has_no_first_answer(start_fake: StartFake) -> None:
    target = fake(start_fake, "openai", "--reasoning-tokens", "50")
    assert [s.first_answer_ns for s in samples(target, PROTOCOLS["openai"]["chat"])] == [0, 0]


@pytest.mark.parametrize("protocol", CHATS)
def test_a_tool_call_is_output_and_answer(start_fake: StartFake, protocol: ProtocolName) -> None:
    target = fake(start_fake, protocol, "--reasoning-tokens", "2", "--tool-call")
    for s in samples(target, PROTOCOLS[protocol]["chat"]):
        assert len(s.event_ns) == 8
        assert s.first_answer_ns == s.event_ns[2]
        assert "look_up" in (s.text or "")


@pytest.mark.parametrize("protocol", CHATS)
def test_a_conversation_is_sent_as_messages(start_fake: StartFake, protocol: ProtocolName) -> None:
    talk = [{"role": "user", "content": "one two three"}, {"role": "assistant", "content": "four"}, {"role": "user", "content": "five"}]
    dialect = PROTOCOLS[protocol]["chat"]
    short, long = (samples(fake(start_fake, protocol), dialect, prompts=lambda _, n=n: talk[:n])[0] for n in (1, 3))
    assert short.input_tokens is not None
    assert long.input_tokens is not None
    assert long.input_tokens > short.input_tokens


@pytest.mark.parametrize(
    ("flags", "outcome"),
    [
        (("--in-stream-error", "3"), "in_stream_error"),
        (("--malformed", "json"), "malformed"),
        (("--malformed", "utf8"), "malformed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_fault_is_classified_in_every_protocol(
    start_fake: StartFake, protocol: ProtocolName, flags: tuple[str, ...], outcome: str
) -> None:
    dialect = PROTOCOLS[protocol]["completions"]
    for s in load(fake(start_fake, protocol, *flags), dialect, wire(dialect, 4)).samples:
        assert s.outcome == outcome, s.error


# -- a running server, by its own protocol -------------------------------------------------------------------------------

FIELDS = {
    ("openai", "completions"): {"model", "prompt", "max_tokens", "temperature", "stream", "stream_options", "top_p"},
    ("openai", "chat"): {"model", "messages", "max_tokens", "temperature", "stream", "stream_options", "top_p"},
    ("openai", "responses"): {"model", "input", "max_output_tokens", "temperature", "stream", "store", "top_p"},
    ("openai", "messages"): {"model", "messages", "max_tokens", "temperature", "stream", "top_p"},
    ("ollama", "completions"): {"model", "prompt", "raw", "stream", "options"},
    ("ollama", "chat"): {"model", "messages", "stream", "options"},
    ("sglang", "completions"): {"text", "sampling_params", "stream"},
    ("tgi", "completions"): {"inputs", "parameters"},
}


def attached(protocol: str, **options: JSON) -> Deployment:
    return Deployment("openai", "fake", "unstated", "fake", "attach", url="http://127.0.0.1:1", options={"protocol": protocol, **options})


@pytest.mark.parametrize(("protocol", "api"), ROUTES)
def test_a_running_server_is_attached_to_by_its_own_protocol(start_fake: StartFake, protocol: ProtocolName, api: str) -> None:
    target, deployment = fake(start_fake, protocol), attached(protocol)
    get = http_get_url(f"http://{target.authority}")
    assert OPENAI.readiness(get) == "ready"
    resolved = OPENAI.resolved(get)
    assert resolved.model == "fake"
    assert resolved.context == (None if protocol == "openai" else 4096)
    asked = ClosedLoop(output_tokens=8, api=api)
    OPENAI.check(deployment)
    OPENAI.check_loads(deployment, [asked])
    dialect = OPENAI.dialect(deployment, asked)
    extra = OPENAI.request_fields(deployment, asked)
    requests = wire(dialect, 2, extra=extra)
    assert all(json.loads(request.body).keys() == FIELDS[protocol, api] for request in requests)
    assert [s.outcome for s in load(target, dialect, requests).samples] == ["ok", "ok"]


def test_forced_length_is_spelled_where_the_protocol_has_it() -> None:
    asked = ClosedLoop()
    assert OPENAI.request_fields(attached("openai", ignore_eos=True), asked)["ignore_eos"] is True
    forced = attached("sglang", ignore_eos=True, prompt_ids=True)
    OPENAI.check(forced)
    assert OPENAI.request_fields(forced, asked) == {"sampling_params": {"ignore_eos": True, "top_p": 1.0, "top_k": -1, "min_p": 0.0}}
    assert OPENAI.traits(forced).forces_length
    assert OPENAI.traits(forced).takes_ids


@pytest.mark.parametrize("protocol", ["ollama", "tgi"])
@pytest.mark.parametrize("option", ["ignore_eos", "prompt_ids"])
def test_what_a_protocol_cannot_say_is_refused(protocol: str, option: str) -> None:
    with pytest.raises(Unsupported, match=f"the {protocol} protocol has neither"):
        OPENAI.check(attached(protocol, **{option: True}))


@pytest.mark.parametrize("protocol", ["sglang", "tgi"])
def test_a_route_that_a_protocol_lacks_is_refused(protocol: str) -> None:
    with pytest.raises(Unsupported, match="no chat route"):
        OPENAI.check_loads(attached(protocol), [ClosedLoop(), ClosedLoop(api="chat")])


# -- when the fake engine's events leave ---------------------------------------------------------------------------------


@pytest.mark.clock
def test_streams_in_lockstep_get_their_tokens_together(start_fake: StartFake) -> None:
    """Prompts of different lengths spread the streams over a tick of 80 ms; alone, their tokens would come 10 ms apart."""
    target = start_fake("--ttft-ms", "5", "--prefill-ms-per-token", "10", "--tick-ms", "80")
    dialect = PROTOCOLS["openai"]["completions"]
    found = load(target, dialect, wire(dialect, 8, tokens=5, prompts=lambda i: [7] * (i + 1)), concurrency=8).samples
    assert [len(s.event_ns) for s in found] == [5] * 8
    arrivals = sorted(stamp for s in found for stamp in s.event_ns)
    together = sum(b - a < 4e6 for a, b in pairwise(arrivals))
    assert together >= 0.7 * len(arrivals)
    assert median(b - a for s in found for a, b in pairwise(s.event_ns)) == pytest.approx(80e6, rel=0.1)


def test_a_long_prompt_takes_longer(start_fake: StartFake) -> None:
    target = start_fake(*FAST, "--prefill-ms-per-token", "1")
    dialect = PROTOCOLS["openai"]["completions"]
    (sample,) = load(target, dialect, wire(dialect, 1, prompts=lambda _: [7] * 60)).samples
    assert sample.event_ns[0] - sample.sent_ns > 60e6


@pytest.mark.clock
def test_a_batch_of_events_is_one_write(start_fake: StartFake) -> None:
    target = start_fake("--ttft-ms", "5", "--itl-ms", "20", "--batch-events", "4")
    for s in samples(target, PROTOCOLS["openai"]["completions"]):
        gaps = [b - a for a, b in pairwise(s.event_ns)]
        assert len(gaps) == 7
        assert gaps.index(max(gaps)) == 3
        assert max(gaps) > 60e6


@pytest.mark.parametrize("flags", [("--tick-ms", "2"), ("--itl-ms", "0", "--batch-events", "32")])
def test_the_fast_ways_say_what_the_slow_one_says(start_fake: StartFake, flags: tuple[str, ...]) -> None:
    dialect = PROTOCOLS["openai"]["chat"]
    manners = ("--role-chunk", "--pings", "--reasoning-tokens", "7")
    slow = samples(start_fake(*FAST, *manners), dialect, tokens=70)
    fast, again = (samples(start_fake(*flags, *manners), dialect, tokens=70) for _ in range(2))
    for a, b, c in zip(slow, fast, again, strict=True):
        assert a.text == b.text == c.text
        assert a.output_tokens == b.output_tokens == c.output_tokens == 70
        assert len(a.event_ns) == len(b.event_ns) == len(c.event_ns) == 70


# -- connections ---------------------------------------------------------------------------------------------------------


def test_a_connection_for_each_request_where_the_server_closes(start_fake: StartFake) -> None:
    dialect = PROTOCOLS["openai"]["completions"]
    result = load(start_fake(*FAST, "--close"), dialect, wire(dialect, 6), concurrency=1)
    assert [s.outcome for s in result.samples] == ["ok"] * 6
    assert (result.client.reconnects, result.client.stale) == (5, 0)


def https(start_fake: StartFake, host: str) -> Target:
    target = start_fake(*FAST, "--tls-cert", str(TLS / "server.crt"), "--tls-key", str(TLS / "server.key"))
    return Target(host, target.port, tls=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_with_an_authority_of_ones_own(start_fake: StartFake, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "ca.crt"))
    dialect = PROTOCOLS["openai"]["completions"]
    result = load(https(start_fake, host), dialect, wire(dialect, 6))
    assert [s.outcome for s in result.samples] == ["ok"] * 6
    assert all(len(s.event_ns) == 8 for s in result.samples)
    assert result.client.reconnects == 0


def test_tls_that_nobody_vouches_for_is_refused(start_fake: StartFake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    dialect = PROTOCOLS["openai"]["completions"]
    for s in load(https(start_fake, "127.0.0.1"), dialect, wire(dialect, 3)).samples:
        assert (s.outcome, s.sent_ns) == ("connect", 0)
        assert "certificate" in (s.error or "").lower()


# -- proxies -------------------------------------------------------------------------------------------------------------


class BufferingProxy(socketserver.BaseRequestHandler):
    """Passes requests on at once and holds what comes back: for `hold_s`, or until the stream is over (None)."""

    upstream: tuple[str, int]
    hold_s: float | None

    def handle(self) -> None:
        with socket.create_connection(self.upstream) as server, contextlib.suppress(OSError):
            held, due = b"", 0.0
            while True:
                waits = None if not held or self.hold_s is None else max(0.0, due - time.monotonic())
                readable, _, _ = select.select([self.request, server], [], [], waits)
                for source in readable:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is self.request:
                        server.sendall(data)
                        continue
                    due = due if held else time.monotonic() + (self.hold_s or 0.0)
                    held += data
                over = held.endswith(b"0\r\n\r\n")
                if over or (held and self.hold_s is not None and time.monotonic() >= due):
                    self.request.sendall(held)
                    held = b""


@contextlib.contextmanager
def proxied(target: Target, hold_s: float | None) -> Iterator[Target]:
    handler = type("Handler", (BufferingProxy,), {"upstream": (target.host, target.port), "hold_s": hold_s})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Target("127.0.0.1", server.server_address[1])
        server.shutdown()


def checks(result: LoadResult) -> set[str]:
    """What the verdict on these samples names."""
    cell = Cell(Deployment("fake", "m", "none", "m"), ClosedLoop(concurrency=2, output_tokens=60, input_tokens=2, requests=6))
    record = CellRecord(cell.id, cell.launch_id, cell.deployment, cell.load, 0, "ok", identity="proven")
    gathered = Samples.collect(result.samples)
    window = steady_window(gathered, cell.load)
    return {reason.check.id for reason in judge(Context(gathered.within(window), record, window)).reasons}


@pytest.mark.parametrize(("hold_s", "seen"), [(0.0, False), (0.2, True), (None, True)], ids=["passes on", "200 ms", "until the end"])
def test_a_proxy_that_collects_events_is_noticed(start_fake: StartFake, hold_s: float | None, seen: bool) -> None:
    dialect = PROTOCOLS["openai"]["completions"]
    with proxied(start_fake("--ttft-ms", "20", "--itl-ms", "8"), hold_s) as target:
        result = load(target, dialect, wire(dialect, 6, tokens=60))
    assert [s.outcome for s in result.samples] == ["ok"] * 6
    assert bool(checks(result) & {"burst_delivery", "few_events"}) == seen
