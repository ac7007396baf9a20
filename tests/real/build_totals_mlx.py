"""Counts the weights that mlx-lm builds for configs, without computing them: run by the Python of an environment that has it.

Reads JSON lines with `config` from stdin and writes one number per line.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from mlx.utils import tree_flatten


def total(config: dict[str, Any]) -> int:
    family = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    model = family.Model(family.ModelArgs.from_dict(config))
    return sum(each.size for _, each in tree_flatten(model.parameters()))


if __name__ == "__main__":
    for line in sys.stdin:
        print(total(json.loads(line)["config"]), flush=True)
