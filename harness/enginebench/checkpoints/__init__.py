"""Checkpoints: resolving references, making random models, reading vocabularies."""

from enginebench.checkpoints.locate import Format, check, local_path, missing, prepare
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.checkpoints.vocabulary import Vocabulary, read_vocabulary

__all__ = ["Format", "RandomMoE", "Vocabulary", "check", "local_path", "missing", "prepare", "read_vocabulary"]
