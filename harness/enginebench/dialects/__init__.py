"""Wire dialects: the request and response formats of generation APIs.

A dialect builds request bodies and decodes event payloads. An adapter selects one and adds the fields of its engine; a few dialects serve
almost every engine. The names below are the public interface. Does not know: sockets, clocks, engines.
"""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from enginebench.dialects.base import Dialect, Event, Framing, Messages, PromptInput
from enginebench.dialects.form import Form, ToolChoice, image_part
from enginebench.dialects.messages import AnthropicMessages
from enginebench.dialects.ollama import OllamaChat, OllamaGenerate
from enginebench.dialects.openai import OpenAIChat, OpenAICompletions
from enginebench.dialects.responses import OpenAIResponses
from enginebench.dialects.sglang import SglangGenerate
from enginebench.dialects.tgi import TgiGenerateStream

__all__ = [
    "PROTOCOLS", "AnthropicMessages", "Dialect", "Event", "Form", "Framing", "Messages", "OllamaChat", "OllamaGenerate", "OpenAIChat",
    "OpenAICompletions", "OpenAIResponses", "PromptInput", "ProtocolName", "SglangGenerate", "TgiGenerateStream", "ToolChoice",
    "image_part",
]  # fmt: skip

ProtocolName: TypeAlias = Literal["openai", "ollama", "sglang", "tgi"]

PROTOCOLS: Final[Mapping[ProtocolName, Mapping[str, Dialect]]] = {
    "openai": {
        "completions": OpenAICompletions(),
        "chat": OpenAIChat(),
        "responses": OpenAIResponses(),
        "messages": AnthropicMessages(),
    },
    "ollama": {"completions": OllamaGenerate(), "chat": OllamaChat()},
    "sglang": {"completions": SglangGenerate()},
    "tgi": {"completions": TgiGenerateStream()},
}
"""The dialects of each protocol by `Load.api`. A missing API is not supported by the protocol."""
