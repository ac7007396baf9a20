"""Checkpoints: resolving references, making random models, reading vocabularies.

The planner and the runner use `check`, `missing` and `prepare`; prompts use `read_vocabulary`; tests and examples use `RandomMoE`.
"""

from enginebench.checkpoints.locate import Format, check, local_path, missing, prepare
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.checkpoints.vocabulary import Vocabulary, read_vocabulary

__all__ = ["Format", "RandomMoE", "Vocabulary", "check", "local_path", "missing", "prepare", "read_vocabulary"]
