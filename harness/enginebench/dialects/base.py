"""What every dialect shares: the event, the interface, and readers that take nothing a server sends on trust.

Does not know: any one protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, cast

import orjson

from enginebench.domain import JSON

Framing = Literal["sse", "ndjson"]

Messages: TypeAlias = Sequence[Mapping[str, str]]
"""A conversation so far: {"role": ..., "content": ...}, oldest first."""
PromptInput: TypeAlias = str | Sequence[int] | Messages
"""What a request asks: text, token ids, or (chat routes only) the messages of a conversation."""


@dataclass(slots=True)
class Event:
    """What one event of a stream carried. chars > 0 or tokens > 0 makes it an *output* event.

    chars: characters of output, whatever kind; answer_chars: those of them that are answer (text, a refusal, a tool call) and not
    reasoning. tokens: number of output tokens in it, None when the engine does not say. The usage counts are running or final
    totals.
    """

    chars: int = 0
    answer_chars: int = 0
    tokens: int | None = None
    text: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    timings: Mapping[str, float] | None = None
    error: str | None = None
    closing: bool = False
    """Nothing but the final counts: the stream is complete, whatever ends it."""
    done: bool = False
    """The engine's end-of-stream marker ([DONE], done:true); many streams end without one."""

    def say(self, answer: str, reasoning: str = "") -> None:
        """This event's output: reasoning, then answer."""
        self.text = reasoning + answer
        self.chars = len(self.text)
        self.answer_chars = len(answer)


@dataclass(frozen=True, slots=True)
class Ask:
    """One generation, in neutral terms. seed None: the server's own choice."""

    model: str
    prompt: PromptInput
    output_tokens: int
    temperature: float
    seed: int | None


class Dialect(ABC):
    """How one family of engines spells requests and streams. Stateless and picklable; what a stream needs to remember is in `decoder`."""

    path: ClassVar[str]
    framing: ClassVar[Framing] = "sse"

    def body(
        self,
        *,
        model: str,
        prompt: PromptInput,
        output_tokens: int,
        temperature: float,
        seed: int | None,
        extra: Mapping[str, JSON],
    ) -> dict[str, JSON]:
        """The JSON body of a streaming request with explicit sampling; extra is what the adapter adds (objects are merged one level
        deep). Raises ValueError for a kind of prompt that the route does not take."""
        return merged(self._spelled(Ask(model, prompt, output_tokens, temperature, seed)), extra)

    def decode(self, payload: bytes) -> Event:
        """One event's payload (SSE data or one NDJSON line), on its own -> Event. Raises ValueError when it is not what the dialect
        promises."""
        return read_event(payload, self._read)

    @abstractmethod
    def _spelled(self, ask: Ask) -> dict[str, JSON]:
        """The body of a streaming request."""

    @abstractmethod
    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        """Set what one event, which is no error, says."""

    def decoder(self) -> Callable[[bytes], Event]:
        """`decode` for the events of one stream, in order. Where events build on each other it is a fresh, stateful one."""
        return self.decode


def read_event(payload: bytes, read: Callable[[Event, Mapping[str, Any]], None]) -> Event:
    """What all protocols share: an end marker, a JSON object, an error in it; `read` does the rest. Raises ValueError."""
    if payload == b"[DONE]":
        return Event(done=True)
    data = json_object(payload)
    event = Event()
    error = data.get("error")
    if error:
        event.error = error_text(error)
    else:
        read(event, data)
    return event


def json_object(payload: bytes) -> dict[str, Any]:
    """The payload as a JSON object. Raises ValueError."""
    data = orjson.loads(payload)
    if not isinstance(data, dict):
        raise ValueError("event is not a JSON object")
    return data


def merged(body: Mapping[str, JSON], extra: Mapping[str, JSON]) -> dict[str, JSON]:
    """body with extra; where both have an object under a name, the fields of both (extra wins)."""
    out = dict(body)
    for name, value in extra.items():
        ours = out.get(name)
        out[name] = {**ours, **value} if isinstance(ours, dict) and isinstance(value, dict) else value
    return out


def as_messages(prompt: PromptInput) -> list[JSON]:
    """The prompt as chat messages; text becomes one message of the user. Raises ValueError for token ids."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not prompt or not isinstance(prompt[0], Mapping):
        raise ValueError("the chat route takes text or messages, not token ids")
    return [dict(message) for message in cast("Messages", prompt)]


def as_text(prompt: PromptInput, route: str) -> str:
    """The prompt of a route that takes nothing but text. Raises ValueError."""
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
    """A number of tokens, if it is a credible one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def text(value: Any) -> str:
    """The text of a field: a string, or the text parts of a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = (part.get("text") for part in value if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def tool_text(calls: Any) -> str:
    """The pieces of function names and arguments that a list of tool calls holds; arguments that are no string, as JSON."""
    pieces: list[str] = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            pieces.append(function_text(function))
    return "".join(pieces)


def function_text(function: Mapping[str, Any]) -> str:
    """The name and the arguments of one function call, as far as this event has them."""
    arguments = function.get("arguments")
    spelled = orjson.dumps(arguments).decode() if isinstance(arguments, dict) else text(arguments)
    return text(function.get("name")) + spelled


def error_text(error: Any) -> str:
    """What an error field says."""
    if isinstance(error, dict):
        return str(error.get("message") or error.get("type") or error)
    return str(error)


def figures(values: Mapping[str, Any], *names: str) -> dict[str, float] | None:
    """Those of the named fields that are numbers (all fields, if none are named); None if there are none."""
    found = {name: values.get(name) for name in names or values}
    return {name: v for name, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)} or None
