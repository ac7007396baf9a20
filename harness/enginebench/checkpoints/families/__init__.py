"""Model families that a random checkpoint can have: which tensors, which metadata, which names in either format.

One class per family, found by the name that scenarios use. `FAMILIES` is the only place that lists them.
"""

from enginebench.checkpoints.families.base import Family, Geometry, Stored, Tensor
from enginebench.checkpoints.families.deepseek import DeepSeekV3
from enginebench.checkpoints.families.gpt_oss import GptOss
from enginebench.checkpoints.families.llama import Llama, Mixtral
from enginebench.checkpoints.families.llama4 import Llama4
from enginebench.checkpoints.families.qwen import OLMoE, Qwen3MoE

FAMILIES: dict[str, Family] = {
    family.name: family for family in (Qwen3MoE(), Mixtral(), OLMoE(), DeepSeekV3(), Llama4(), GptOss(), Llama())
}

__all__ = ["FAMILIES", "Family", "Geometry", "Stored", "Tensor"]
