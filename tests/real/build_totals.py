"""Counts the weights that transformers builds for configs, without data: run by the Python of an environment that has it.

Reads JSON lines with `config` from stdin and writes one number per line, 0 for a type that this version of transformers lacks. Biases that
only choose experts are buffers in transformers, but weights in the checkpoint, so they count.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
import transformers

_OTHER = re.compile(r"visual|vision|projector|audio|resampler|view_separator|image_newline")
_BIASES = re.compile(r"e_score_correction_bias$|expert_bias$|balancing_biases$")


def total(config: dict[str, Any]) -> int:
    whole = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    text = whole.get_text_config()
    with torch.device("meta"):
        if type(text) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            model = transformers.AutoModelForCausalLM.from_config(text)
        else:  # it has no class for text alone
            model = transformers.AutoModelForImageTextToText.from_config(whole)
    tensors = {id(each): each.numel() for name, each in model.named_parameters() if not _OTHER.search(name)}  # a tied table once
    return sum(tensors.values()) + sum(each.numel() for name, each in model.named_buffers() if _BIASES.search(name))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    for line in sys.stdin:
        config = json.loads(line)["config"]
        print(total(config) if config["model_type"] in transformers.CONFIG_MAPPING else 0, flush=True)
