"""The routes that agents use, for the fake engine: OpenAI's Responses and Anthropic's Messages, with all the events of a stream."""

from fake_spelling import TOOL, Spelling, dumps


def named(kind: str, fields: dict[str, object]) -> bytes:
    """A server-sent event with its name, as both routes send it."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps({"type": kind, **fields}))


class Responses(Spelling):
    """POST /v1/responses."""

    chat = True

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        self.numbered = 0
        return body.get("input"), body.get("max_output_tokens")

    def named(self, kind: str, fields: dict[str, object]) -> bytes:
        self.numbered += 1
        return named(f"response.{kind}", {"sequence_number": self.numbered - 1, **fields})

    def response(self, status: str, text: str = "") -> dict[str, object]:
        output = (
            [{"type": "message", "id": "msg_0", "role": "assistant", "content": [{"type": "output_text", "text": text}]}] if text else []
        )
        made = {"input_tokens": self.prompt_tokens, "input_tokens_details": {"cached_tokens": self.options.cached_tokens}}
        made |= {"output_tokens": self.count, "output_tokens_details": {"reasoning_tokens": self.reasoning}}
        ended = status != "in_progress"
        return {
            "id": f"resp_{self.seed:08x}", "object": "response", "status": status, "model": self.options.model, "output": output,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "usage": {**made, "total_tokens": self.prompt_tokens + self.count} if ended and self.options.usage != "none" else None,
        }  # fmt: skip

    def opening(self) -> bytes:
        if self.options.tool_call:
            item: dict[str, object] = {"type": "function_call", "id": "fc_0", "call_id": "call_0", "name": "", "arguments": ""}
        else:
            item = {"type": "message", "id": "msg_0", "role": "assistant", "status": "in_progress", "content": []}
        part = {"item_id": "msg_0", "output_index": 0, "content_index": 0, "part": {"type": "output_text", "text": "", "annotations": []}}
        first = [self.named(kind, {"response": self.response("in_progress")}) for kind in ("created", "in_progress")]
        first.append(self.named("output_item.added", {"output_index": 0, "item": item}))
        return b"".join(first) + (b"" if self.options.tool_call else self.named("content_part.added", part))

    def event(self, tokens: range) -> bytes:
        place = {"item_id": "msg_0", "output_index": 0, "content_index": 0, "delta": self.text(tokens)}
        if tokens.start < self.reasoning:
            return self.named("reasoning_text.delta", place)
        if not self.options.tool_call:
            return self.named("output_text.delta", {**place, "logprobs": []})
        return self.named("function_call_arguments.delta", {"item_id": "fc_0", "output_index": 0, "delta": self.text(tokens)})

    def closing(self) -> bytes:
        text = self.text(range(self.count))
        done = self.named("output_text.done", {"item_id": "msg_0", "output_index": 0, "content_index": 0, "text": text})
        return done + self.named("incomplete", {"response": self.response("incomplete", text)})

    def error(self, message: str) -> bytes:
        return named("error", {"code": "server_error", "message": message, "param": None})

    def whole(self) -> object:
        return self.response("incomplete", self.text(range(self.count)))


class Messages(Spelling):
    """POST /v1/messages. Its `input_tokens` leave out those that came from the cache."""

    chat = True

    def read(self, body: dict[str, object]) -> tuple[object, object]:
        system = [body["system"]] if body.get("system") else []
        messages = body.get("messages")
        return [*system, *(messages if isinstance(messages, list) else [])], body.get("max_tokens")

    def usage(self, made: int) -> dict[str, object]:
        cached = self.options.cached_tokens
        return {"input_tokens": self.prompt_tokens - cached, "cache_read_input_tokens": cached, "output_tokens": made}

    def block(self, kind: str) -> bytes:
        blocks: dict[str, dict[str, object]] = {
            "thinking": {"type": "thinking", "thinking": "", "signature": ""}, "text": {"type": "text", "text": ""},
            "tool_use": {"type": "tool_use", "id": "toolu_0", "name": TOOL, "input": {}},
        }  # fmt: skip
        return named("content_block_start", {"index": 0, "content_block": blocks[kind]})

    def opening(self) -> bytes:
        head = {"id": f"msg_{self.seed:08x}", "type": "message", "role": "assistant", "content": [], "model": self.options.model}
        message = {**head, "stop_reason": None, "stop_sequence": None, "usage": self.usage(1)}
        return named("message_start", {"message": message}) + named("ping", {})

    def event(self, tokens: range) -> bytes:
        kind, field, name = ("text_delta", "text", "text")
        if tokens.start < self.reasoning:
            kind, field, name = "thinking_delta", "thinking", "thinking"
        elif self.options.tool_call:
            kind, field, name = "input_json_delta", "partial_json", "tool_use"
        begins = tokens.start in (0, self.reasoning)
        delta = named("content_block_delta", {"index": 0, "delta": {"type": kind, field: self.text(tokens)}})
        return (self.block(name) if begins else b"") + delta

    def closing(self) -> bytes:
        reason = "tool_use" if self.options.tool_call else "max_tokens"
        end = {"delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": self.count}}
        return named("content_block_stop", {"index": 0}) + named("message_delta", end) + named("message_stop", {})

    def error(self, message: str) -> bytes:
        return named("error", {"error": {"type": "api_error", "message": message}})

    def whole(self) -> object:
        text = [{"type": "text", "text": self.text(range(self.count))}]
        return {"type": "message", "role": "assistant", "content": text, "stop_reason": "max_tokens", "usage": self.usage(self.count)}
