"""Wire dialects: how a generation request is spelled and what one event of its stream says.

A dialect is pure: it builds a request body and decodes event payloads. It knows no socket, no clock and no engine; an adapter
picks one and adds that engine's own fields. The same few dialects serve almost every engine. Public surface: everything below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from enginebench.dialects.base import Dialect, Event, Framing, Messages, PromptInput
from enginebench.dialects.ollama import OllamaChat, OllamaGenerate
from enginebench.dialects.openai import OpenAIChat, OpenAICompletions
from enginebench.dialects.sglang import SglangGenerate
from enginebench.dialects.tgi import TgiGenerateStream

__all__ = [
    "PROTOCOLS",
    "Dialect",
    "Event",
    "Framing",
    "Messages",
    "OllamaChat",
    "OllamaGenerate",
    "OpenAIChat",
    "OpenAICompletions",
    "PromptInput",
    "ProtocolName",
    "SglangGenerate",
    "TgiGenerateStream",
]

ProtocolName: TypeAlias = Literal["openai", "ollama", "sglang", "tgi"]

PROTOCOLS: Final[Mapping[ProtocolName, Mapping[str, Dialect]]] = {
    "openai": {"completions": OpenAICompletions(), "chat": OpenAIChat()},
    "ollama": {"completions": OllamaGenerate(), "chat": OllamaChat()},
    "sglang": {"completions": SglangGenerate()},
    "tgi": {"completions": TgiGenerateStream()},
}
"""Each protocol's dialects, by `Load.api`; an api that is missing is one that the protocol does not have."""
