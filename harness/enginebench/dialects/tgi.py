"""Text Generation Inference's /generate_stream, which LoRAX and others took over: one event for each token.

The end-of-sequence token is an event too; it is counted as a token and its text is not part of the answer. The route takes no token
ids, and cannot be made to go on after an end of sequence. Does not know chat: TGI speaks that as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enginebench.dialects.base import Ask, Dialect, Event, as_text, count, text
from enginebench.domain import JSON


class TgiGenerateStream(Dialect):
    """POST /generate_stream: a raw prompt (text only). The body names no model (it is the one that is loaded) and asks for no stream
    (the route is one)."""

    path = "/generate_stream"

    def _spelled(self, ask: Ask) -> dict[str, JSON]:
        parameters: dict[str, JSON] = {"max_new_tokens": ask.output_tokens, "details": True, "do_sample": ask.temperature > 0}
        if ask.temperature > 0:  # the server refuses 0, whatever do_sample says
            parameters["temperature"] = ask.temperature
        if ask.seed is not None:
            parameters["seed"] = ask.seed
        return {"inputs": as_text(ask.prompt, self.path), "parameters": parameters}

    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        token = data.get("token")
        if isinstance(token, dict):
            event.tokens = 1
            event.say("" if token.get("special") is True else text(token.get("text")))
        details = data.get("details")
        if isinstance(details, dict):
            _details(event, details)
        elif isinstance(data.get("generated_text"), str):
            event.finish_reason = "unknown"  # the last event, from a server that gives no details


def _details(event: Event, details: Mapping[str, Any]) -> None:
    reason = details.get("finish_reason")
    event.finish_reason = reason if isinstance(reason, str) else None
    event.output_tokens = count(details.get("generated_tokens"))
    prefill = details.get("prefill")
    asked = len(prefill) if isinstance(prefill, list) and prefill else None
    event.input_tokens = next((n for name in ("input_length", "prompt_tokens") if (n := count(details.get(name))) is not None), asked)
