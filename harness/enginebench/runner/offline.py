"""Offline batch mode: a batch through the engine's own in-process API, run by a worker (adapters/workers/) in its environment.

The worker loads the model once and answers each load with one line of JSON. Its monotonic clock is the client's: both run on one machine.
"""

import json
import select
import time
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Self

from enginebench.adapter import Adapter, Reply
from enginebench.dialects.scoring import Question, Scores, Scoring, of_worker
from enginebench.domain import Load, Sample
from enginebench.loadgen import Acks, ClientHealth, LoadResult
from enginebench.records.launch import LaunchRecord
from enginebench.runner.engine import Engine, OnProgress
from enginebench.runner.prompts import PromptSource
from enginebench.runtime import EngineProcess, LaunchFailed
from enginebench.runtime.place import Started
from enginebench.runtime.posting import NotAnswered
from enginebench.workload import Prompt

SCORE_TIMEOUT_S = 1800.0
"""For one window."""
EXIT_PATIENCE_S = 1.0
"""The pipe of a worker that exits closes before its exit status is known."""


class OfflineEngine(Engine):
    """A batch worker with its model loaded. It streams nothing, so TTFT is mostly undefined."""

    def __init__(self, adapter: Adapter, launch: LaunchRecord, process: EngineProcess, prompts: PromptSource) -> None:
        super().__init__(adapter, launch, prompts, process, self._reply, None)
        self._process = process
        self._requests = 0
        self._given_up: str | None = None
        """Why the worker is not used any more."""
        self._buffer = b""
        self._replies: Mapping[str, Any] = {}
        """Path of the engine's HTTP API -> what the engine would reply; sent by the worker when it is ready."""

    @classmethod
    def connect(cls, adapter: Adapter, launch: LaunchRecord, process: EngineProcess, prompts: PromptSource, timeout_s: float) -> Self:
        """Wait for the worker's `ready` event. Raises LaunchFailed."""
        worker = cls(adapter, launch, process, prompts)
        event = worker._receive(timeout_s)
        if event is None or event.get("event") != "ready":
            process.wait(EXIT_PATIENCE_S)
            reason = event.get("message") if event else process.ending or f"silent for {timeout_s:g} s"
            raise LaunchFailed(f"the batch worker did not become ready: {reason}", process.log_tail())
        worker._replies = event.get("resolved") or {}
        return worker

    def run(
        self, prompts: Sequence[Prompt], load: Load, *, on_progress: OnProgress = None, keep_text: bool = False, acks: Acks = "usual",
        measured: bool = False,
    ) -> LoadResult:  # fmt: skip
        ids = self.adapter.traits(self.launch.deployment).takes_ids
        self._requests += 1
        request = {
            "id": self._requests, "prompts": [list(p.ids) if ids and p.ids is not None else p.text or list(p.ids or ()) for p in prompts],
            "output_tokens": prompts[0].output_tokens, "batch": load.concurrency, "temperature": load.temperature, "seed": load.seed,
        }  # fmt: skip
        sent_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
        event, failure = self._exchange(request, load.timeout_s)
        if event is None:
            outcome = "timeout" if self._given_up else "in_stream_error" if self._process.alive else "cut"
            samples = [_failed(i, p, sent_ns, outcome, failure) for i, p in enumerate(prompts)]
            return LoadResult(samples, sent_ns, time.monotonic_ns(), _health(cpu_ns, sent_ns, load))
        samples = [_sample(i, p, event, reply) for i, (p, reply) in enumerate(zip(prompts, event["requests"], strict=True))]
        return LoadResult(samples, event["start_ns"], event["end_ns"], _health(cpu_ns, sent_ns, load))

    def score(self, scoring: Scoring, question: Question) -> Scores:
        self._requests += 1
        request = {"id": self._requests, "score": question.ids, "first": question.first, "top": question.top}
        event, failure = self._exchange(request, SCORE_TIMEOUT_S, "scores")
        if event is None:
            raise NotAnswered(failure)
        return of_worker(question, event)

    def _exchange(self, request: Mapping[str, Any], timeout_s: float, wanted: str = "result") -> tuple[dict[str, Any] | None, str]:
        """(the worker's event of the wanted kind, '') or (None, why there is none). timeout_s: for the whole batch."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101  # started with piped=True
        try:
            stdin.write(json.dumps(request, separators=(",", ":")).encode() + b"\n")
            stdin.flush()
            event = self._receive(timeout_s)
        except BrokenPipeError:
            event = None
        if event is None and not self._process.wait(EXIT_PATIENCE_S):
            # A late result would be taken for that of the next load, so this worker must not be used again.
            self._given_up = f"did not answer within {timeout_s:g} s"
            self._process.stop(0)
            return None, self._given_up
        if event is None:
            return None, self._process.ending or "ended"
        if event.get("event") != wanted:
            return None, str(event.get("message"))
        if event.get("id") != request["id"] or len(event.get("requests", ())) != len(request.get("prompts", ())):
            return None, "the worker's result does not match the request"
        return event, ""

    def _reply(self, path: str) -> Reply:
        return Reply(200, json.dumps(self._replies[path]).encode()) if path in self._replies else Reply(404)

    def started(self) -> Mapping[str, Started]:
        return {"engine": self._process}

    def ending(self, patience_s: float = 0.0) -> str | None:
        ending = super().ending(patience_s)
        return self._given_up or ending

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The worker's next event; None if it exited or the time is over."""
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101  # started with piped=True
        until = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                return None
            data = stdout.read1(1 << 16)  # type: ignore[attr-defined]  # a BufferedReader, which IO[bytes] does not promise
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            event = json.loads(line)
        except ValueError:
            return {"event": "error", "message": f"unreadable line from the worker: {line[:200]!r}"}
        return event if isinstance(event, dict) else None


def _sample(index: int, prompt: Prompt, event: Mapping[str, Any], reply: Mapping[str, Any]) -> Sample:
    times = [int(t) for t in reply.get("token_ns") or ()]
    counts: dict[str, Any] = {name: reply.get(name) for name in ("input_tokens", "output_tokens", "cached_tokens")}
    return Sample(
        index, prompt.tokens, prompt.output_tokens, due_ns=event["start_ns"], sent_ns=event["start_ns"], end_ns=event["end_ns"],
        event_ns=array("q", times), event_tokens=array("i", [1] * len(times)), event_chars=array("i", [0] * len(times)),
        outcome="in_stream_error" if reply.get("error") else "ok", error=reply.get("error"),
        server_timings=reply.get("counts"), **counts,
    )  # fmt: skip


def _failed(index: int, prompt: Prompt, sent_ns: int, outcome: str, error: str) -> Sample:
    now_ns = time.monotonic_ns()
    return Sample(index, prompt.tokens, prompt.output_tokens, due_ns=sent_ns, sent_ns=sent_ns, end_ns=now_ns, outcome=outcome, error=error)


def _health(cpu_ns: int, sent_ns: int, load: Load) -> ClientHealth:
    """The client of a batch only waits: it has no event loop and no lag."""
    wall = max(1, time.monotonic_ns() - sent_ns)
    return ClientHealth(
        lag_p50_ms=0.0, lag_p99_ms=0.0, lag_max_ms=0.0, cpu_fraction=(time.process_time_ns() - cpu_ns) / wall,
        schedule_delay_p50_ms=0.0, schedule_delay_p99_ms=0.0, schedule_delay_max_ms=0.0,
        achieved_concurrency=float(load.concurrency), reconnects=0, stale=0, loop="none",
    )  # fmt: skip
