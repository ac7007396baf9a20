"""What requests of a load hold besides their prompts: a system message, tools, a form of the answer, images, and which are aborted.

Reads the files that a load names. Does not know routes or how a field is spelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from enginebench.dialects import Form
from enginebench.domain import JSON, Load, TraceReplay
from enginebench.errors import UserError
from enginebench.workload.draws import stream, uniforms
from enginebench.workload.files import find, modified
from enginebench.workload.images import base64_png, size_of
from enginebench.workload.prompts import Prompt

_MOST_TOOLS = 128
"""What OpenAI's API takes."""
_TOOL_ADVICE = 'write a list of {"type": "function", "function": {"name": ..., "parameters": {...}}}, or how many tools to make up'
_FORMAT_ADVICE = "write json_object, or a file with a JSON schema (an object)"


def form_of(load: Load, base: Path) -> Form:
    """The tools and the form of the answers of a load. UserError for a file that does not hold them."""
    tools = _tools(load.tools, base) if load.tools is not None else ()
    return Form(tools, load.tool_choice, _response_format(load.response_format, base) if load.response_format is not None else None)


def _tools(text: str, base: Path) -> tuple[Mapping[str, JSON], ...]:
    if text.isdecimal():
        if not 0 < int(text) <= _MOST_TOOLS:
            raise UserError(f"{text} tools cannot be sent", key="tools", advice=f"write 1 to {_MOST_TOOLS}")
        return tuple(_made_up(number) for number in range(int(text)))
    file = find(text, base, "tools")
    found = _json(file, modified(file))
    named = isinstance(found, list) and found and all(_is_tool(tool) for tool in found)
    if not named:
        raise UserError("this is no list of tools", file=file, key="tools", advice=_TOOL_ADVICE)
    return tuple(found)


def _is_tool(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _made_up(number: int) -> Mapping[str, JSON]:
    """A tool with two arguments, about 60 tokens as most templates write it."""
    query: dict[str, JSON] = {"type": "string", "description": "What to look for, in a few words"}
    limit: dict[str, JSON] = {"type": "integer", "description": "Most results to return", "minimum": 1}
    parameters: dict[str, JSON] = {"type": "object", "properties": {"query": query, "limit": limit}, "required": ["query"]}
    description = f"Search collection {number} and return the passages that match the query best"
    return {"type": "function", "function": {"name": f"search_{number}", "description": description, "parameters": parameters}}


def _response_format(text: str, base: Path) -> Mapping[str, JSON]:
    if text == "json_object":
        return {"type": "json_object"}
    file = find(text, base, "response_format")
    schema = _json(file, modified(file))
    if not isinstance(schema, dict) or not schema:
        raise UserError("this is no JSON schema", file=file, key="response_format", advice=_FORMAT_ADVICE)
    if isinstance(inner := schema.get("json_schema"), dict):  # a whole response_format
        return {"type": "json_schema", "json_schema": inner}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


@lru_cache(maxsize=8)
def _json(file: Path, _modified: int) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        raise UserError(f"invalid JSON: {error}", file=file, line=line, advice="write one JSON value") from None


def check_form(load: Load, base: Path) -> None:
    """UserError for what the load's requests cannot hold."""
    for key, wrong, message, advice in _rules(load):
        if wrong:
            raise UserError(message, key=key, advice=advice)
    form = form_of(load, base)
    if load.images:
        size_of(load.image_size)
    if load.api == "messages" and form.response_format is not None and form.schema is None:
        advice = "name a file with a JSON schema"
        raise UserError("Anthropic's messages have answers of a schema, not of any JSON object", key="response_format", advice=advice)


def _rules(load: Load) -> Iterator[tuple[str, bool, str, str]]:
    for key in ("system_tokens", "tools", "response_format", "images"):
        asked = bool(getattr(load, key))
        yield (
            key,
            asked and not load.templated,
            f"raw completions have no `{key}`",
            "write 'api: chat', 'api: responses' or 'api: messages'",
        )
    cold = load.prefix_cache == "cold"
    yield "images", load.images > 0 and isinstance(load, TraceReplay), "a trace has no images", "leave it out"
    yield "system_tokens", bool(load.system_tokens) and cold, "a system message fills a prefix cache", "write 'prefix_cache: allowed'"


def completed(prompts: list[Prompt], load: Load, salt: str) -> None:
    """Add to the prompts, in place, the images and the times at which requests are aborted."""
    if load.images:
        width, height = size_of(load.image_size)
        for index, prompt in enumerate(prompts):
            if prompt.turn == 0:
                images = tuple(base64_png(width, height, load.seed, f"{salt}#{index}.{number}") for number in range(load.images))
                prompts[index] = replace(prompt, images=images)
    if load.cancel_share and load.cancel_s:
        for index, drawn in enumerate(uniforms(stream(load.seed, "cancel"), len(prompts)).tolist()):
            if drawn < load.cancel_share:
                prompts[index] = replace(prompts[index], abort_s=load.cancel_s)
