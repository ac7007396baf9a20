"""How the fake engine writes what it generates, in the protocols of real engines. Does not know sockets or clocks."""

import argparse
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise

WORDS = (
    "mixture", "of", "experts", "routes", "each", "token", "to", "a", "few", "and", "sums", "what", "they", "say", "then", "goes", "on",
)  # fmt: skip
TOOL = "look_up"
_encoder = json.JSONEncoder(separators=(",", ":"))


def dumps(value: object) -> bytes:
    return _encoder.encode(value).encode()


def field(body: dict[str, object], group: str, name: str) -> object:
    found = body.get(group)
    return found.get(name) if isinstance(found, dict) else None


class Spelling(ABC):
    """One request and its output. Token i of the output is a word that depends only on the prompt and on i."""

    kind = "text/event-stream"
    chat = False
    ping = b": ping\n\n"

    def __init__(self, options: argparse.Namespace, body: dict[str, object]) -> None:
        self.options, self.body = options, body
        prompt, output_tokens = self.read(body)
        ids = isinstance(prompt, list) and not self.chat
        self.prompt_tokens = len(prompt) if ids else round(len(json.dumps(prompt).split()) * 4 / 3)  # type: ignore[arg-type]
        self.count = output_tokens if isinstance(output_tokens, int) else 16
        if options.short_output:
            self.count = min(self.count, options.short_output)
        self.reasoning = min(options.reasoning_tokens, self.count)
        self.hands_over = field(body, "kv_transfer_params", "do_remote_decode") is True
        """Only the prompt is computed here; another server continues from its KV."""
        self.handed = field(body, "kv_transfer_params", "do_remote_prefill") is True
        """Another server has computed the prompt."""
        self.seed = zlib.crc32(json.dumps(prompt).encode())
        self._ring = [f" {WORDS[(self.seed + 7 * i) % len(WORDS)]}" for i in range(len(WORDS))]

    def tokens(self) -> Iterator[range]:
        """The tokens of each event; no event has both reasoning and answer."""
        step, first = max(1, self.options.tokens_per_event), 0
        while first < self.count:
            end = min(first + step, self.reasoning if first < self.reasoning else self.count)
            yield range(first, end)
            first = end

    def text(self, tokens: range) -> str:
        ring = self._ring
        return "".join([ring[i % len(ring)] for i in tokens])

    def ends(self, tokens: range) -> bool:
        return tokens.stop >= self.count

    @staticmethod
    def frame(payload: bytes) -> bytes:
        return b"data: %b\n\n" % payload

    def opening(self) -> bytes:
        """What is sent at once, before the first token."""
        return b""

    def closing(self) -> bytes:
        """What is sent with the last token, after it."""
        return b""

    def error(self, message: str) -> bytes:
        return self.frame(dumps({"error": {"message": message, "type": "server_error"}}))

    @abstractmethod
    def read(self, body: dict[str, object]) -> tuple[object, object]:
        """(the prompt, the number of output tokens)"""

    @abstractmethod
    def event(self, tokens: range) -> bytes:
        """The framed event with these tokens; the last one has the finish reason. Must be called in order."""

    @abstractmethod
    def whole(self) -> object:
        """The response to a request without streaming."""


class Completions(Spelling):
    object_name = "text_completion"

    def __init__(self, options: argparse.Namespace, body: dict[str, object]) -> None:
        super().__init__(options, body)
        self.with_ids = body.get("return_token_ids") is True
        self._made: dict[tuple[int, int, str], bytes] = {}

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        return body.get("prompt"), body.get("max_tokens")

    def envelope(self, choices: list[object]) -> dict[str, object]:
        frame: dict[str, object] = {"id": f"fake-{self.seed:08x}", "object": self.object_name, "created": 1700000000}
        return {**frame, "model": self.options.model, "choices": choices}

    def content(self, part: str, text: str) -> dict[str, object]:
        """The field of a choice with the text; part: reasoning, answer, or the beginning (call) and rest (arguments) of a tool call."""
        return {"text": text}

    def part(self, tokens: range) -> str:
        if tokens.start < self.reasoning:
            return "reasoning"
        if not self.options.tool_call:
            return "answer"
        return "call" if tokens.start == self.reasoning else "arguments"

    def usage(self, count: int) -> dict[str, object]:
        usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": count, "total_tokens": self.prompt_tokens + count}
        return {**usage, "prompt_tokens_details": {"cached_tokens": self.options.cached_tokens}}

    def event(self, tokens: range) -> bytes:
        part, alike = self.part(tokens), not (self.ends(tokens) or self.with_ids or self.options.usage == "continuous")
        key = (tokens.start % len(WORDS), len(tokens), part)
        if alike and key in self._made:
            return self._made[key]
        reason = ("tool_calls" if self.options.tool_call else "length") if self.ends(tokens) else None
        choice: dict[str, object] = {"index": 0, **self.content(part, self.text(tokens)), "logprobs": None, "finish_reason": reason}
        choice |= {"token_ids": list(tokens)} if self.with_ids else {}
        counted = self.options.usage == "continuous" or (reason is not None and self.options.usage == "choices")
        event = self.frame(dumps(self.envelope([choice]) | ({"usage": self.usage(tokens.stop)} if counted else {})))
        if alike:
            self._made[key] = event
        return event

    def handing(self) -> dict[str, object]:
        """Where the KV of the prompt can be fetched, if the request asks for it."""
        if not self.hands_over:
            return {}
        place = {"remote_engine_id": "fake", "remote_block_ids": [[0]], "remote_host": self.options.host, "remote_port": self.options.port}
        return {"kv_transfer_params": {"do_remote_prefill": True, "do_remote_decode": False, **place}}

    def closing(self) -> bytes:
        usage = self.frame(dumps({**self.envelope([]), "usage": self.usage(self.count)})) if self.options.usage == "separate" else b""
        return usage + (b"" if self.options.no_done else self.frame(b"[DONE]"))

    def scored(self) -> dict[str, object]:
        """vLLM's prompt_logprobs, if the request asks for them: a token's probability depends on it and on the one before it."""
        ids, top = self.body.get("prompt"), self.body.get("prompt_logprobs")
        if not isinstance(ids, list) or not isinstance(top, int):
            return {}
        places = [None, *({str(token): self.probability(before, token) for token in {now, *range(top)}} for before, now in pairwise(ids))]
        return {"prompt_logprobs": places}

    def probability(self, before: int, token: int) -> dict[str, object]:
        logprob = -2.0 - zlib.crc32(b"%d %d" % (before, token)) % 4000 / 1000 - self.options.loss
        return {"logprob": None if self.options.loss < 0 else logprob, "rank": 1, "decoded_token": ""}

    def whole(self) -> object:
        choice: dict[str, object] = {
            "index": 0,
            "text": self.text(range(self.count)),
            "logprobs": None,
            "finish_reason": "length",
        } | self.scored()
        return {**self.envelope([choice]), "usage": self.usage(self.count), **self.handing()}


class Chat(Completions):
    object_name = "chat.completion.chunk"
    chat = True

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        return body.get("messages"), body.get("max_tokens")

    def content(self, part: str, text: str) -> dict[str, object]:
        if part == "call":
            call = {"index": 0, "id": "call_0", "type": "function", "function": {"name": TOOL, "arguments": text}}
            return {"delta": {"tool_calls": [call]}}
        if part == "arguments":
            return {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}}
        return {"delta": {"reasoning_content" if part == "reasoning" else "content": text}}

    def opening(self) -> bytes:
        if not self.options.role_chunk:
            return b""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return self.frame(dumps(self.envelope([choice])))

    def whole(self) -> object:
        message = {"role": "assistant", "content": self.text(range(self.count))}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return {**self.envelope([choice]), "usage": self.usage(self.count), **self.handing()}


SpellingOf = Callable[[argparse.Namespace, dict[str, object]], Spelling]
