"""Checkpoints: where a reference leads, what a random one holds, and what prompts can be made of.

`check`, `missing` and `prepare` are for the planner and the runner, `read_vocabulary` for prompts, `RandomMoE` for tests and examples.
"""

from enginebench.checkpoints.locate import Format, at_hand, check, missing, prepare
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.checkpoints.vocabulary import Vocabulary, read_vocabulary

__all__ = ["Format", "RandomMoE", "Vocabulary", "at_hand", "check", "missing", "prepare", "read_vocabulary"]
