"""Counts the weights that transformers builds for configs, without data: run by the Python of an environment that has it.

Reads JSON lines with `config` from stdin and writes one number per line. Biases that only choose experts are buffers in transformers, but
weights in the checkpoint, so they count.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
import transformers

_BIASES = re.compile(r"e_score_correction_bias$|expert_bias$")


def total(config: dict[str, Any]) -> int:
    text = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config)).get_text_config()
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(text)
    tensors = {id(each): each.numel() for each in model.parameters()}  # a tied table once
    return sum(tensors.values()) + sum(each.numel() for name, each in model.named_buffers() if _BIASES.search(name))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    for line in sys.stdin:
        print(total(json.loads(line)["config"]), flush=True)
