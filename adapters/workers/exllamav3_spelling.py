"""OpenAI's two generation routes: from a request's fields to an `Ask`, from `Piece`s to events or one response.

A field that is not in the table is refused, because ignoring it would change the experiment.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from exllamav3_scheduler import Ask, Backend, Piece, Usage
from worker_http import Refused, Reply, as_json, failure

NUMBER = (int, float)
SHARED: Mapping[str, tuple[type, ...]] = {
    "model": (str,), "max_tokens": (int,), "ignore_eos": (bool,), "temperature": NUMBER, "top_k": (int,), "top_p": NUMBER,
    "min_p": NUMBER, "seed": (int,), "stream": (bool,), "stream_options": (dict,),
}  # fmt: skip
FIELDS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "/v1/completions": {**SHARED, "prompt": (str, list)},
    "/v1/chat/completions": {**SHARED, "messages": (list,)},
}
"""Route -> its fields, with their types."""

STREAM = b"Content-Type: text/event-stream\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n"
DEFAULT_MAX_TOKENS = 16
"""As in OpenAI's completions."""

Fields = Mapping[str, Any]


def read(path: str, raw: bytes, model: str) -> Fields:
    """The fields of a request on one of the routes. Raises Refused with the name of an invalid field."""
    known = FIELDS[path]
    try:
        fields = json.loads(raw)
    except ValueError:
        raise Refused("the body is not JSON") from None
    if not isinstance(fields, dict):
        raise Refused("the body is not a JSON object")
    for name, value in fields.items():
        if name not in known:
            raise Refused(f"{name}: unknown field; this server has {', '.join(sorted(known))}")
        kinds = known[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise Refused(f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}, not {json.dumps(value)[:80]}")
    if fields.get("model", model) != model:
        raise Refused(f"model: this server has {model}, not {fields['model']}", 404)
    return fields


def ask(fields: Fields, backend: Backend) -> Ask:
    settings = {name: fields[name] for name in ("ignore_eos", "temperature", "top_k", "top_p", "min_p", "seed") if name in fields}
    asked = Ask(_prompt(fields, backend), fields.get("max_tokens", DEFAULT_MAX_TOKENS), **settings)
    if asked.max_tokens < 1:
        raise Refused("max_tokens: expected at least 1")
    if not asked.prompt:
        raise Refused("the prompt has no tokens")
    if asked.temperature < 0 or asked.top_k < 0 or not 0 < asked.top_p <= 1 or not 0 <= asked.min_p <= 1:
        raise Refused("expected temperature >= 0, top_k >= 0, 0 < top_p <= 1 and 0 <= min_p <= 1")
    return asked


def _prompt(fields: Fields, backend: Backend) -> Sequence[int]:
    if "messages" in fields:
        messages = fields["messages"]
        if not messages or not all(isinstance(message, dict) for message in messages):
            raise Refused("messages: expected a non-empty list of objects with role and content")
        try:
            return backend.encode_chat(messages)
        except ValueError as error:
            raise Refused(f"messages: {error}") from None
    prompt = fields.get("prompt")
    if isinstance(prompt, str):
        return backend.encode(prompt)
    if not isinstance(prompt, list) or not all(type(each) is int and each >= 0 for each in prompt):
        raise Refused("prompt: expected one text or one list of token ids")
    return prompt


class Answer:
    """The response to one generation. ended: whether all of it is sent."""

    def __init__(self, reply: Reply, fields: Fields, number: int, model: str) -> None:
        self.reply, self.ended = reply, False
        self._chat = "messages" in fields
        self._streams = bool(fields.get("stream"))
        self._include_usage = bool(fields.get("stream_options", {}).get("include_usage"))
        kind = ("chat.completion.chunk" if self._streams else "chat.completion") if self._chat else "text_completion"
        self._frame = {"id": f"cmpl-{number}", "object": kind, "created": int(time.time()), "model": model}
        self._text = ""
        self._ids: list[int] = []

    def take(self, piece: Piece) -> None:
        """Send the piece, or keep it for a response that is not streamed."""
        self.ended = piece.finish is not None
        if piece.finish == "error":
            status = 400 if piece.refused else 500
            if self.reply.begun:
                self._write(b"data: " + failure(piece.error, status) + b"\n\n")
            else:
                self.reply.say(status, failure(piece.error, status))
        elif self._streams:
            self._stream(piece)
        else:
            self._text += piece.text
            self._ids += piece.tokens
            if piece.finish:
                choice = self._choice(self._text, self._ids, piece.finish)
                self.reply.say(200, as_json({**self._frame, "choices": [choice], **_usage(piece.usage)}))

    def _stream(self, piece: Piece) -> None:
        events = _event({**self._frame, "choices": [self._choice(piece.text, piece.tokens, piece.finish)]})
        if piece.finish:
            if self._include_usage:
                events += _event({**self._frame, "choices": [], **_usage(piece.usage)})
            events += b"data: [DONE]\n\n"
        if not self.reply.begun:
            self.reply.begin(b"200 OK", STREAM)
        self._write(events)

    def _write(self, data: bytes) -> None:
        self.reply.write(b"%x\r\n%b\r\n%b" % (len(data), data, b"0\r\n\r\n" if self.ended else b""))

    def _choice(self, text: str, ids: Sequence[int], finish: str | None) -> dict[str, object]:
        content: dict[str, object] = {"text": text}
        if self._chat:
            content = {"delta" if self._streams else "message": {"role": "assistant", "content": text}}
        return {"index": 0, **content, "token_ids": list(ids), "finish_reason": finish}


def _event(value: object) -> bytes:
    return b"data: " + as_json(value) + b"\n\n"


def _usage(usage: Usage | None) -> dict[str, object]:
    if usage is None:
        return {}
    counts = {"prompt_tokens": usage.prompt, "completion_tokens": usage.output, "total_tokens": usage.prompt + usage.output}
    return {"usage": {**counts, "prompt_tokens_details": {"cached_tokens": usage.cached}}, "timings": dict(usage.timings)}
