"""The engines' own protocols for the fake engine: Ollama's, SGLang's, TGI's."""

from collections.abc import Mapping

from fake_agents import Messages, Responses
from fake_spelling import TOOL, Chat, Completions, Spelling, SpellingOf, dumps, field


class OllamaGenerate(Spelling):
    """Ollama's /api/generate: one JSON object per line, and a last one with the counts."""

    kind = "application/x-ndjson"
    ping = b"\n"

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
        return self.frame(dumps(self.line(self.content(self.text(tokens), reasoning=tokens.start < self.reasoning), done=False)))

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

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        return body.get("text", body.get("input_ids")), field(body, "sampling_params", "max_new_tokens")

    def body_of(self, tokens: range, count: int) -> dict[str, object]:
        reason = {"type": "length", "length": self.count} if count >= self.count else None
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": count, "cached_tokens": self.options.cached_tokens}
        meta = {"id": f"fake-{self.seed:08x}", "finish_reason": reason, **counts}
        return {"text": self.text(tokens), "output_ids": list(tokens), "meta_info": meta}

    def event(self, tokens: range) -> bytes:
        return self.frame(dumps(self.body_of(tokens if self.options.incremental else range(tokens.stop), tokens.stop)))

    def closing(self) -> bytes:
        return b"" if self.options.no_done else self.frame(b"[DONE]")

    def whole(self) -> object:
        return self.body_of(range(self.count), self.count)


class TgiGenerateStream(Spelling):
    """TGI's /generate_stream: always one token per event; the last one has the whole text and the details."""

    ping = b":\n\n"

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        return body.get("inputs"), field(body, "parameters", "max_new_tokens")

    @staticmethod
    def frame(payload: bytes) -> bytes:
        return b"data:%b\n\n" % payload

    def event(self, tokens: range) -> bytes:
        return b"".join(self.frame(dumps(self._token(range(i, i + 1)))) for i in tokens)

    def _token(self, token: range) -> dict[str, object]:
        content = {"id": token.stop, "text": self.text(token), "logprob": -0.5, "special": False}
        last = self.whole() if self.ends(token) else {"generated_text": None, "details": None}
        return {"index": token.stop, "token": content, **last}

    def error(self, message: str) -> bytes:
        return self.frame(dumps({"error": message, "error_type": "generation"}))

    def whole(self) -> dict[str, object]:
        details = {"finish_reason": "length", "generated_tokens": self.count, "seed": None, "input_length": self.prompt_tokens}
        return {"generated_text": self.text(range(self.count)), "details": details}


ROUTES: dict[str, dict[str, SpellingOf]] = {
    "openai": {"/v1/completions": Completions, "/v1/chat/completions": Chat, "/v1/responses": Responses, "/v1/messages": Messages},
    "ollama": {"/api/generate": OllamaGenerate, "/api/chat": OllamaChat},
    "sglang": {"/generate": SglangGenerate},
    "tgi": {"/generate_stream": TgiGenerateStream},
}
"""Protocol -> its generation routes."""
