"""Resolves the name of a model to its weights: a catalogue name, a file, a folder, or a `random:` reference. Reads only file headers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.checkpoints.random_moe import SCHEME as RANDOM
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.errors import UserError, did_you_mean
from enginebench.physics.catalogue import find_model, models
from enginebench.physics.config import from_config
from enginebench.physics.files import read_file
from enginebench.physics.geometry import Model
from enginebench.physics.weights import Weights, weigh


def read_weights(reference: str, name: str | None = None) -> Weights:
    """The weights of a catalogue model, a config.json, a folder of safetensors, a .gguf file, or a `random:` reference.

    name: a precision; then a file gives only the dimensions. None: the published precision, or the real sizes in the file. UserError if the
    reference is unknown or unreadable.
    """
    path = Path(reference).expanduser()
    if reference.startswith(RANDOM):
        return weigh(random_model(reference), name or "bf16")
    if path.exists():
        found = read_file(path)
        return found if name is None else weigh(found.model, name)
    entry = find_model(reference)
    if entry is None:
        raise UserError(
            f"unknown model '{reference}': neither in the catalogue nor a file or folder",
            advice=did_you_mean(reference.lower(), models()),
        )
    return replace(weigh(entry.model, name or entry.native), notes=(entry.note,) if entry.note else ())


def random_model(reference: str) -> Model:
    """The model of a `random:` reference."""
    random = RandomMoE.from_reference(reference)
    shapes = {tensor.name: tensor.shape for tensor in random.tensors()}
    config: dict[str, Any] = {
        "model_type": random.family.hf_type,
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": random.hidden,
        "num_hidden_layers": random.layers,
        "num_attention_heads": random.heads,
        "num_key_value_heads": random.kv_heads,
        "head_dim": random.head_dim,
        "intermediate_size": random.expert_intermediate,
        "max_position_embeddings": random.context,
        **random.family.config(random),
    }
    return from_config(f"random-{random.architecture}", config)
