"""What workers share: the line protocol of in-process batches, JSON requests on stdin and JSON events on stdout, and the routing job.

    worker   {"event": "ready", "engine_version": "1.2", "load_s": 3.1, "resolved": {"/props": {...}}}
    harness  {"id": 1, "prompts": [[1, 2, 3], "text"], "output_tokens": 64, "batch": 8, "temperature": 0, "seed": 0}
    worker   {"event": "result", "id": 1, "start_ns": 1, "end_ns": 9, "requests": [{"input_tokens": 3, "output_tokens": 64, ...}]}
    harness  {"id": 2, "score": [1, 2, 3], "first": 1, "top": 10}
    worker   {"event": "scores", "id": 2, "logprobs": [-1.2, -0.4], "top": [[[2, -1.2], [7, -1.4]], [[3, -0.4], [9, -2.1]]]}
    worker   {"event": "error", "message": "ValueError: ..."}

One model load serves any number of request lines; end of file on stdin ends the worker. load_s is without the imports. `resolved` maps a
path to what the engine's own endpoint would answer there. `score` asks for the natural logarithms of the model's probabilities of the
tokens from `first` on, each given all before it, and of the `top` most probable tokens in place of each; null is no number.
Workers run in their engine's environment, and import only that engine, the standard library, and files of this folder (the folder of a
script is the first entry of sys.path).
"""

import asyncio
import json
import os
import sys
import time
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any, Protocol

__all__ = [
    "Batch", "BatchEngine", "Flat", "Outcome", "Prompt", "RequestOutcome", "ScoreRequest", "Scores", "metered", "run_routing",
    "run_worker",
]  # fmt: skip

Prompt = list[int] | str


@dataclass(frozen=True)
class Batch:
    """One load: every prompt is answered with exactly output_tokens tokens, at most `batch` prompts at a time."""

    prompts: list[Prompt]
    output_tokens: int
    batch: int
    temperature: float = 0.0
    seed: int = 0
    id: int = 0
    """Returned with the result, which it identifies."""

    def check_limit(self, limit: int) -> None:
        """Raises ValueError when `batch` is more than the engine was started for."""
        if self.batch > limit:
            raise ValueError(f"batch {self.batch} is more than the {limit} requests of this launch")


@dataclass(frozen=True)
class RequestOutcome:
    """What the engine counted for one prompt; None where it does not report it."""

    input_tokens: int | None
    output_tokens: int | None
    error: str | None = None
    token_ns: list[int] | None = None
    """When each output token arrived (monotonic)."""
    cached_tokens: int | None = None
    """Tokens of the prompt that came from a prefix cache."""
    counts: dict[str, float] | None = None
    """What else the engine counted for it, under its own names or those of the harness's totals: drafts, accepted_tokens, ..."""


@dataclass(frozen=True)
class Outcome:
    """A finished load, in the order of its prompts. The window is `time.monotonic_ns()` around the generation alone."""

    start_ns: int
    end_ns: int
    requests: list[RequestOutcome]


@dataclass(frozen=True)
class Flat:
    """An array for a file, where an engine's environment has no numpy."""

    dtype: str
    """numpy's name: '<i2', '|b1', ..."""
    shape: tuple[int, ...]
    data: bytes

    def npy(self) -> bytes:
        """As a .npy file, version 1.0."""
        header = f"{{'descr': '{self.dtype}', 'fortran_order': False, 'shape': {self.shape}, }}".encode()
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + self.data


@dataclass(frozen=True)
class ScoreRequest:
    """One window of tokens, of which those from `first` on are scored."""

    ids: list[int]
    first: int
    top: int
    """How many of the most probable tokens are wanted in place of each."""
    id: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.first < len(self.ids) or self.top < 0:
            raise ValueError("first: a token is scored given the tokens before it, so it is from 1 to the last one; top: 0 or more")


Scores = dict[str, Any]
"""{"logprobs": [...], "top": [[[id, logprob], ...], ...]}: what a worker answers to a `ScoreRequest`."""


class BatchEngine(Protocol):
    version: str
    resolved: Mapping[str, object]

    def run(self, batch: Batch) -> Outcome:
        """Answer one load. May raise anything; the harness gets an error event."""
        ...


def run_worker(load: Callable[[], BatchEngine]) -> int:
    """Load the engine, report it, then answer request lines until end of file. Returns the exit code."""
    out = _claim_stdout()
    started = time.monotonic()
    try:
        engine = load()
    except Exception as error:  # noqa: BLE001  # whatever an engine raises while loading belongs in the record
        _emit(out, {"event": "error", "message": f"{type(error).__name__}: {error}"})
        return 1
    load_s = time.monotonic() - started
    _emit(out, {"event": "ready", "engine_version": engine.version, "load_s": load_s, "resolved": dict(engine.resolved)})
    for line in sys.stdin:
        try:
            event = _answer(engine, line)
        except Exception as error:  # noqa: BLE001  # one bad load must not cost the loads after it
            _emit(out, {"event": "error", "message": f"{type(error).__name__}: {error}"})
        else:
            _emit(out, event)
    return 0


def _answer(engine: BatchEngine, line: str) -> dict[str, Any]:
    """The event that answers a line. Raises whatever the engine does."""
    data = json.loads(line)
    if isinstance(data, dict) and "score" in data:
        score: Callable[[ScoreRequest], Scores] | None = getattr(engine, "score", None)
        if score is None:
            raise ValueError("this worker does not score tokens")
        request = ScoreRequest(data["score"], data["first"], data.get("top", 0), data.get("id", 0))
        return {"event": "scores", "id": request.id, **score(request)}
    batch = parse(line)
    return {"event": "result", "id": batch.id, **asdict(engine.run(batch))}


async def metered(batch: Batch, answer: Callable[[Prompt], Awaitable[RequestOutcome]]) -> Outcome:
    """Answer every prompt with at most `batch.batch` of them in the engine. Given a list, an engine would take all of them at once."""
    free = asyncio.Semaphore(batch.batch)

    async def one(prompt: Prompt) -> RequestOutcome:
        async with free:
            return await answer(prompt)

    start = time.monotonic_ns()
    outcomes = await asyncio.gather(*map(one, batch.prompts))
    return Outcome(start, time.monotonic_ns(), outcomes)


def run_routing(collect: Callable[[Mapping[str, Any]], dict[str, Any]], source: str) -> int:
    """Answer the routing job on stdin, one JSON line of `enginebench.runner.routing`. Returns the exit code.

    `collect` returns the arrays of the .npz file job["out"], of numpy or `Flat`, and under `experts` their number.
    Prints {"source": ...} or {"error": ...}.
    """
    job = json.loads(sys.stdin.readline())
    try:
        arrays = collect(job)
    except Exception as error:  # noqa: BLE001  # whatever the engine raises is the answer
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    about = json.dumps({"model": job["name"], "source": source, "experts": arrays.pop("experts")})
    arrays["told"] = Flat(f"<U{len(about)}", (), about.encode("utf-32-le"))
    with zipfile.ZipFile(job["out"], "w", zipfile.ZIP_DEFLATED) as out:
        for name, found in arrays.items():
            flat = found if isinstance(found, Flat) else Flat(found.dtype.str, found.shape, found.tobytes())
            out.writestr(f"{name}.npy", flat.npy())
    print(json.dumps({"source": source}))
    return 0


def parse(line: str) -> Batch:
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("a request is a JSON object")
    prompts = data.get("prompts")
    if not isinstance(prompts, list) or not prompts or not all(_is_prompt(prompt) for prompt in prompts):
        raise ValueError("prompts: expected a non-empty list of texts or lists of token ids")
    for key in ("output_tokens", "batch"):
        if not _is_count(data.get(key)) or data[key] < 1:
            raise ValueError(f"{key}: expected a whole number of at least 1")
    sampling = float(data.get("temperature", 0.0)), int(data.get("seed", 0))
    return Batch(prompts, data["output_tokens"], data["batch"], *sampling, id=int(data.get("id", 0)))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_prompt(value: object) -> bool:
    return (isinstance(value, str) and value != "") or (isinstance(value, list) and value != [] and all(map(_is_count, value)))


def _claim_stdout() -> IO[str]:
    """The real stdout, for events only. fd 1 becomes stderr, because engines and their C++ libraries print to it."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return channel


def _emit(out: IO[str], event: Mapping[str, object]) -> None:
    out.write(json.dumps(event, separators=(",", ":")) + "\n")
    out.flush()
