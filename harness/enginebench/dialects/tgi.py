"""The /generate_stream route of Text Generation Inference, also used by LoRAX and others: one event per token.

The end-of-sequence token is an event: it counts as a token, but its text is not part of the answer. The route takes no token ids and always
stops at an end-of-sequence token. For chat, TGI uses the OpenAI route.
"""

from collections.abc import Mapping
from typing import Any

from enginebench.dialects.base import Dialect, Event, PromptInput, as_text, count, text
from enginebench.dialects.finish import finish_of
from enginebench.domain import JSON


class TgiGenerateStream(Dialect):
    """POST /generate_stream: a raw prompt (text only). The server has one model and always streams, so the body states neither."""

    path = "/generate_stream"

    def _build(self, model: str, prompt: PromptInput, output_tokens: int, sampling: Mapping[str, JSON]) -> dict[str, JSON]:
        given = {name: value for name, value in sampling.items() if name != "temperature" or value}  # a temperature of 0 is rejected
        parameters = {"max_new_tokens": output_tokens, "details": True, "do_sample": "temperature" in given, **given}
        return {"inputs": as_text(prompt, self.path), "parameters": parameters}

    def _read(self, event: Event, data: Mapping[str, Any]) -> None:
        token = data.get("token")
        if isinstance(token, dict):
            event.tokens = 1
            event.set_output("" if token.get("special") is True else text(token.get("text")))
        details = data.get("details")
        if isinstance(details, dict):
            _details(event, details)
        elif isinstance(data.get("generated_text"), str):
            event.done = True  # the last event of a server that sends no details


def _details(event: Event, details: Mapping[str, Any]) -> None:
    event.finish_reason = finish_of(details.get("finish_reason"))
    event.output_tokens = count(details.get("generated_tokens"))
    prefill = details.get("prefill")
    asked = len(prefill) if isinstance(prefill, list) and prefill else None
    event.input_tokens = next((n for name in ("input_length", "prompt_tokens") if (n := count(details.get(name))) is not None), asked)
