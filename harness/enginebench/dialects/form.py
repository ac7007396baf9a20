"""What a request may hold besides its prompt: tools, the form of its answer, images. In the notation of OpenAI's chat route, which each
dialect spells in its own way.

Does not know: routes, files, which engine takes what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from enginebench.domain import JSON

ToolChoice: TypeAlias = Literal["auto", "none", "required"]


@dataclass(frozen=True)
class Form:
    """The same for every request of a load."""

    tools: Sequence[Mapping[str, JSON]] = ()
    """{"type": "function", "function": {"name": ..., "description": ..., "parameters": JSON schema}}"""
    tool_choice: ToolChoice = "auto"
    response_format: Mapping[str, JSON] | None = None
    """{"type": "json_object"}, or {"type": "json_schema", "json_schema": {"name": ..., "schema": JSON schema}}"""

    def __bool__(self) -> bool:
        return bool(self.tools or self.response_format)

    @property
    def schema(self) -> Mapping[str, JSON] | None:
        """The JSON schema of the answer; None: any object, or no form at all."""
        inner = (self.response_format or {}).get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        return schema if isinstance(schema, dict) else None

    @property
    def functions(self) -> list[Mapping[str, JSON]]:
        """The functions of the tools."""
        return [function for tool in self.tools if isinstance(function := tool.get("function"), dict)]


def image_part(base64_png: str) -> dict[str, JSON]:
    """A part of a content that is an image."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64_png}"}}


def parts_of(content: JSON) -> list[tuple[Literal["text", "image"], str]]:
    """The parts of a content: texts, and images as data URLs. Raises ValueError for any other part."""
    if isinstance(content, str):
        return [("text", content)]
    found: list[tuple[Literal["text", "image"], str]] = []
    for part in content if isinstance(content, list) else []:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and kind == "text":
            found.append(("text", str(part.get("text", ""))))
        elif isinstance(part, dict) and kind == "image_url" and isinstance(image := part.get("image_url"), dict):
            found.append(("image", str(image.get("url"))))
        else:
            raise ValueError(f"a part of a message is of kind '{kind}'; this route takes texts and images")
    return found
