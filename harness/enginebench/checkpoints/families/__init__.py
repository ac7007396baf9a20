"""Model families of random checkpoints: tensors, metadata, and names in both file formats.

One class per family, by the name that scenarios use. Only `FAMILIES` lists them.
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
