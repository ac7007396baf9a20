"""The base of all dialects: the event, the interface, and helpers that read fields of untrusted server data.

Does not know: a particular protocol.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, cast

import orjson

from enginebench.dialects.finish import failure_of
from enginebench.dialects.form import Form
from enginebench.domain import JSON

Framing = Literal["sse", "ndjson"]

Messages: TypeAlias = Sequence[Mapping[str, JSON]]
"""A conversation so far: {"role": ..., "content": ...}, oldest first. A content is text, or a list of parts (`dialects.form`)."""
PromptInput: TypeAlias = str | Sequence[int] | Messages
"""A prompt: text, token ids, or (chat routes only) the messages of a conversation."""


@dataclass(slots=True)
class Event:
    """One event of a stream. It is an *output* event if chars > 0 or tokens > 0."""

    chars: int = 0
    """Characters of output of any kind."""
    answer_chars: int = 0
    """Those of them that are answer (text, a refusal, a tool call), not reasoning."""
    tokens: int | None = None
    """Output tokens in this event; None if the engine does not report them."""
    text: str = ""
    input_tokens: int | None = None
    """A running or final total, as are output_tokens and cached_tokens."""
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Those of the output tokens that are reasoning, streamed or not."""
    finish_reason: str | None = None
    timings: Mapping[str, float] | None = None
    error: str | None = None
    closing: bool = False
    """The event has only final counts, so the stream is complete."""
    done: bool = False
    """The engine's end-of-stream marker ([DONE], done:true); many streams end without one."""

    def set_output(self, answer: str, reasoning: str = "", *, without_text: bool = False) -> None:
        """Set the output: reasoning, then answer. without_text: the event holds sound or an image, which counts as one character."""
        self.text = reasoning + answer
        self.chars = len(self.text) + without_text
        self.answer_chars = len(answer) + without_text


class Dialect(ABC):
    """The request and stream format of one family of engines. Stateless and picklable; a stream's state is in its `decoder`."""

    path: ClassVar[str]
    framing: ClassVar[Framing] = "sse"
    headers: ClassVar[Mapping[str, str]] = {}
    """Added to every request."""
    lacks: ClassVar[frozenset[str]] = frozenset()
    """Fields that adapters add to the requests of every route, and that this one does not have."""

    def body(
        self, *, model: str, prompt: PromptInput, output_tokens: int, temperature: float, seed: int | None, extra: Mapping[str, JSON]
    ) -> dict[str, JSON]:
        """The JSON body of a streaming request with explicit sampling. extra: fields of the adapter (objects are merged one level deep).
        Raises ValueError for a kind of prompt that the route does not accept."""
        sampling = {"temperature": temperature} | ({} if seed is None else {"seed": seed})
        if self.lacks:
            extra = {name: value for name, value in extra.items() if name not in self.lacks}
        return merged(self._build(model, prompt, output_tokens, sampling), extra)

    def form_fields(self, form: Form) -> dict[str, JSON]:
        """The fields of a body that ask for tools and for a form of the answer. Raises ValueError for what the route does not have."""
        raise ValueError(f"{self.path} has neither tools nor a form of the answer")

    def decode(self, payload: bytes) -> Event:
        """Decode the payload of one event (SSE data or one NDJSON line) by itself. Raises ValueError for an invalid payload."""
        return read_event(payload, self._read)

    @abstractmethod
    def _build(self, model: str, prompt: PromptInput, output_tokens: int, sampling: Mapping[str, JSON]) -> dict[str, JSON]:
        """The body of a streaming request. sampling: `temperature` and, unless the server chooses it, `seed`."""

    @abstractmethod
    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        """Set the fields of an event that is not an error."""

    def decoder(self) -> Callable[[bytes], Event]:
        """`decode` for the events of one stream, in order. A new stateful decoder if events depend on earlier ones."""
        return self.decode


def read_event(payload: bytes, read: Callable[[Event, Mapping[str, Any]], None]) -> Event:
    """Handle what all protocols share (end marker, JSON object, error field); `read` handles the rest. Raises ValueError."""
    if payload == b"[DONE]":
        return Event(done=True)
    data = json_object(payload)
    event = Event()
    error = data.get("error")
    if not error and "choices" not in data:
        error = data.get("errors") or ("error" in (data.get("object"), data.get("type")) and data)
    if error:
        event.error = error_text(error)
    else:
        read(event, data)
        if event.finish_reason is not None:
            event.error = event.error or failure_of(event.finish_reason)
    return event


def json_object(payload: bytes) -> dict[str, Any]:
    """The payload as a JSON object. Raises ValueError."""
    data = orjson.loads(payload)
    if not isinstance(data, dict):
        raise ValueError("event is not a JSON object")
    return data


def merged(body: Mapping[str, JSON], extra: Mapping[str, JSON]) -> dict[str, JSON]:
    """body with extra. If both have an object of the same name, their fields are merged. extra wins."""
    out = dict(body)
    for name, value in extra.items():
        old = out.get(name)
        out[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def as_messages(prompt: PromptInput) -> list[JSON]:
    """The prompt as chat messages; text becomes one user message. Raises ValueError for token ids."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not prompt or not isinstance(prompt[0], Mapping):
        raise ValueError("the chat route takes text or messages, not token ids")
    return [dict(message) for message in cast("Messages", prompt)]


def as_text(prompt: PromptInput, route: str) -> str:
    """The prompt of a route that takes only text. Raises ValueError for other kinds."""
    if not isinstance(prompt, str):
        raise ValueError(f"{route} takes text, not token ids or messages")
    return prompt


def as_text_or_ids(prompt: PromptInput, route: str) -> str | list[JSON]:
    """The prompt of a route that takes text or token ids. Raises ValueError for messages."""
    if isinstance(prompt, str):
        return prompt
    if prompt and isinstance(prompt[0], Mapping):
        raise ValueError(f"{route} takes text or token ids, not messages")
    return list(cast("Sequence[int]", prompt))


def count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


_TEXTS = ("text", "thinking", "reasoning", "summary", "content", "refusal", "output_text", "transcript", "data")
"""Fields of a part of a content that may hold its text; of a text that the server has encrypted, `data`."""
_THOUGHTS = ("thinking", "reasoning", "summary")


def texts(value: Any, *, thought: bool = False) -> tuple[str, str]:
    """(reasoning, answer) of a field: a string, a part (an object that names its type) or a list of parts, at any depth."""
    if isinstance(value, str):
        return (value, "") if thought else ("", value)
    if isinstance(value, list):
        pairs = [texts(part, thought=thought) for part in value]
        return "".join(reasoning for reasoning, _ in pairs), "".join(answer for _, answer in pairs)
    if isinstance(value, dict) and (name := next((name for name in _TEXTS if value.get(name)), None)):
        kind = str(value.get("type", ""))
        return texts(value[name], thought=thought or name in _THOUGHTS or any(word in kind for word in _THOUGHTS))
    return "", ""


def text(value: Any) -> str:
    """The whole text of a field."""
    return value if isinstance(value, str) else "".join(texts(value))


def tool_text(calls: Any) -> str:
    """The pieces of names and arguments in tool calls. Arguments that are objects are formatted as JSON."""
    listed = calls if isinstance(calls, list) else [calls]
    return "".join(function_text(call.get("function") or call.get("custom")) for call in listed if isinstance(call, dict))


def function_text(function: Any) -> str:
    """The pieces of name and arguments of one function call in this event."""
    if not isinstance(function, dict):
        return ""
    arguments = function.get("arguments") or function.get("input")
    return text(function.get("name")) + (orjson.dumps(arguments).decode() if isinstance(arguments, dict) else text(arguments))


def error_text(error: Any) -> str:
    if isinstance(error, list) and error:
        return error_text(error[0])
    if isinstance(error, dict):
        return str(error.get("message") or error.get("detail") or error.get("type") or error.get("code") or error)
    return str(error)


def figures(values: Mapping[str, Any], *names: str) -> dict[str, float] | None:
    """The named fields that are numbers (all numeric fields if no name is given); None if there are none."""
    found = {name: values.get(name) for name in names or values}
    return {name: v for name, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)} or None
