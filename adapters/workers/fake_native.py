"""The engines' own protocols for the fake engine: Ollama's, SGLang's, TGI's. Standard library only.

Knows no socket and no clock; `fake_spelling` defines what a spelling is.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from fake_spelling import HOLE, TOOL, Chat, Completions, Spelling, SpellingOf, dumps, field, template


class OllamaGenerate(Spelling):
    """Ollama's /api/generate: one JSON object per line, and a last one with the counts."""

    kind = "application/x-ndjson"
    ping = b"\n"

    def __init__(self, options: argparse.Namespace, body: dict[str, object]) -> None:
        super().__init__(options, body)
        self._answer, self._reasoning = (template(self.line(self.content(HOLE, reasoning=r), done=False)) for r in (False, True))

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        return body.get("prompt"), field(body, "options", "num_predict")

    @staticmethod
    def frame(payload: bytes) -> bytes:
        return payload + b"\n"

    def line(self, content: Mapping[str, object], *, done: bool) -> dict[str, object]:
        return {"model": self.options.model, "created_at": "2026-01-01T00:00:00Z", **content, "done": done}

    def content(self, text: str, *, reasoning: bool) -> Mapping[str, object]:
        return {"response": "", "thinking": text} if reasoning else {"response": text}

    def event(self, tokens: range) -> bytes:
        form = self._reasoning if tokens.start < self.reasoning else self._answer
        return self.frame(form % (b'"%b"' % self.text(tokens).encode()))

    def error(self, message: str) -> bytes:
        return self.frame(dumps({"error": message}))

    def closing(self) -> bytes:
        return self.frame(dumps(self.last("")))

    def whole(self) -> object:
        return self.last(self.text(range(self.count)))

    def last(self, text: str) -> dict[str, object]:
        options = self.options
        spent = round((options.ttft_ms + self.count * options.itl_ms) * 1e6)
        durations = {"total_duration": spent, "load_duration": 0, "eval_duration": round(self.count * options.itl_ms * 1e6)}
        counts = {"prompt_eval_count": self.prompt_tokens, "eval_count": self.count, "prompt_eval_cached_count": options.cached_tokens}
        return {**self.line(self.content(text, reasoning=False), done=True), "done_reason": "length", **durations, **counts}


class OllamaChat(OllamaGenerate):
    """Ollama's /api/chat. It sends a tool call as a whole, with the last token."""

    chat = True

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        return body.get("messages"), field(body, "options", "num_predict")

    def content(self, text: str, *, reasoning: bool) -> Mapping[str, object]:
        return {"message": {"role": "assistant", "content": "", "thinking": text} if reasoning else {"role": "assistant", "content": text}}

    def event(self, tokens: range) -> bytes:
        if not (self.options.tool_call and self.ends(tokens)):
            return super().event(tokens)
        call = {"function": {"name": TOOL, "arguments": {"words": self.text(tokens)}}}
        return self.frame(dumps(self.line({"message": {"role": "assistant", "content": "", "tool_calls": [call]}}, done=False)))


class SglangGenerate(Spelling):
    """SGLang's /generate: each event has the whole text so far, or with `incremental` only the new text."""

    def __init__(self, options: argparse.Namespace, body: dict[str, object]) -> None:
        super().__init__(options, body)
        self._text, self._ids = "", b""
        self._form = template({"text": HOLE, "output_ids": HOLE, "meta_info": self.meta(HOLE, HOLE)})

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        return body.get("text", body.get("input_ids")), field(body, "sampling_params", "max_new_tokens")

    def meta(self, count: object, reason: object) -> dict[str, object]:
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": count, "cached_tokens": self.options.cached_tokens}
        return {"id": f"fake-{self.seed:08x}", "finish_reason": reason, **counts}

    def event(self, tokens: range) -> bytes:
        text, ids = self.text(tokens), b",".join([b"%d" % i for i in tokens])
        if not self.options.incremental:
            text = self._text = self._text + text
            ids = self._ids = self._ids + b"," + ids if self._ids else ids
        reason = dumps({"type": "length", "length": self.count}) if self.ends(tokens) else b"null"
        return self.frame(self._form % (b'"%b"' % text.encode(), b"[%b]" % ids, reason, b"%d" % tokens.stop))

    def closing(self) -> bytes:
        return b"" if self.options.no_done else self.frame(b"[DONE]")

    def whole(self) -> object:
        reason = {"type": "length", "length": self.count}
        return {"text": self.text(range(self.count)), "output_ids": list(range(self.count)), "meta_info": self.meta(self.count, reason)}


class TgiGenerateStream(Spelling):
    """TGI's /generate_stream: always one token per event; the last one has the whole text and the details."""

    ping = b":\n\n"

    def __init__(self, options: argparse.Namespace, body: dict[str, object]) -> None:
        super().__init__(options, body)
        token = {"id": HOLE, "text": HOLE, "logprob": -0.5, "special": False}
        self._form = template({"index": HOLE, "token": token, "generated_text": HOLE, "details": HOLE})

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        return body.get("inputs"), field(body, "parameters", "max_new_tokens")

    @staticmethod
    def frame(payload: bytes) -> bytes:
        return b"data:%b\n\n" % payload

    def event(self, tokens: range) -> bytes:
        return b"".join(self.frame(self._token(range(i, i + 1))) for i in tokens)

    def _token(self, token: range) -> bytes:
        number, text = b"%d" % token.stop, b'"%b"' % self.text(token).encode()
        rest = (dumps(self.text(range(self.count))), dumps(self.details())) if self.ends(token) else (b"null", b"null")
        return self._form % (number, number, text, *rest)

    def details(self) -> dict[str, object]:
        return {"finish_reason": "length", "generated_tokens": self.count, "seed": None, "input_length": self.prompt_tokens}

    def error(self, message: str) -> bytes:
        return self.frame(dumps({"error": message, "error_type": "generation"}))

    def whole(self) -> object:
        return {"generated_text": self.text(range(self.count)), "details": self.details()}


ROUTES: dict[str, dict[str, SpellingOf]] = {
    "openai": {"/v1/completions": Completions, "/v1/chat/completions": Chat},
    "ollama": {"/api/generate": OllamaGenerate, "/api/chat": OllamaChat},
    "sglang": {"/generate": SglangGenerate},
    "tgi": {"/generate_stream": TgiGenerateStream},
}
"""Protocol -> its generation routes."""
