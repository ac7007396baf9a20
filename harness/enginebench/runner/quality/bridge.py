"""A server on loopback that lm-evaluation-harness asks, in front of one running engine: OpenAI's completions and chat routes.

Generations go to the engine's own route as they are. A request for the log-probabilities of a prompt (`echo` with `logprobs`), which few
engines have, is answered through the way in which this engine scores tokens. Serves one client; not for other machines.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from enginebench.dialects.scoring import Question, Scores, Scoring
from enginebench.domain import JSON
from enginebench.runner.engine import Engine
from enginebench.runner.http_engine import HttpEngine
from enginebench.runtime.posting import NotAnswered


class Bridge:
    """What is asked of the engine. scoring: None, with the reason, where it scores no tokens."""

    def __init__(self, engine: Engine, scoring: Scoring | None, why_not: str) -> None:
        self.engine, self.scoring, self.why_not = engine, scoring, why_not
        self._one = threading.Lock()
        """Held while a worker, which takes one request at a time, is asked."""

    def answer(self, path: str, body: Mapping[str, Any]) -> JSON:
        """Raises NotAnswered, and ValueError for a request that is not understood."""
        if path == "/v1/completions" and body.get("echo"):
            return {"object": "text_completion", "choices": [self._scored(i, ids) for i, ids in enumerate(_prompts(body["prompt"]))]}
        if not isinstance(self.engine, HttpEngine):
            raise NotAnswered("an in-process batch returns no text, so only tasks of log-likelihoods can be measured")
        return self.engine.post(path, {**body, "model": self.engine.served_name})

    def _scored(self, index: int, ids: tuple[int, ...]) -> JSON:
        if self.scoring is None:
            raise NotAnswered(self.why_not)
        question = Question(self.engine.served_name, ids, 1, 1)
        if isinstance(self.engine, HttpEngine):
            found = self.engine.score(self.scoring, question)
        else:
            with self._one:
                found = self.engine.score(self.scoring, question)
        return {"index": index, "text": "", "finish_reason": "length", "logprobs": _logprobs(ids, found)}


def _prompts(prompt: Any) -> Sequence[tuple[int, ...]]:
    """The token ids of each prompt. ValueError for a text."""
    several = prompt if isinstance(prompt, list) and prompt and isinstance(prompt[0], list) else [prompt]
    if not all(isinstance(ids, list) and ids and all(isinstance(token, int) for token in ids) for ids in several):
        raise ValueError("prompts are scored by their token ids")
    return [tuple(ids) for ids in several]


def _logprobs(ids: Sequence[int], found: Scores) -> JSON:
    """As OpenAI's first API has them: nothing for the first token, and one more at the end, for the token that is generated."""
    best = [max(top, key=lambda token: top[token]) if top else None for top in found.top] or [None] * len(found.logprobs)
    tops: list[JSON] = [
        {"best": own if token == expected else max((own, *listed))}
        for own, expected, token, listed in zip(found.logprobs, ids[1:], best, found.listed or [()] * len(best), strict=True)
    ]
    own: list[JSON] = list(found.logprobs)
    return {"tokens": [str(token) for token in (*ids, "")], "token_logprobs": [None, *own, 0.0], "top_logprobs": [None, *tops, {"": 0.0}]}


@contextmanager
def serving_bridge(bridge: Bridge) -> Iterator[str]:
    """Serve while the block runs; its base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # http.server's name
            try:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, reply = 200, bridge.answer(self.path, body)
            except (NotAnswered, ValueError, KeyError, TypeError, OSError) as error:
                status, reply = 500, {"error": {"message": str(error) or type(error).__name__}}
            content = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: requests are not logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="bridge", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
