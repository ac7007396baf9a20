"""Finds the vocabulary for a deployment's prompts: in its checkpoint, or in the cache of an engine that downloads checkpoints itself.

Makes no prompts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from enginebench.adapter import Launch
from enginebench.checkpoints import Vocabulary, hub, local_path, read_vocabulary
from enginebench.domain import Deployment
from enginebench.errors import UserError
from enginebench.workload.pools import pool_of

_CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
"""Environment variables that point an engine to another cache."""
_OTHER_TOKENIZER = ("--revision", "--tokenizer")
"""Beginnings of flags that select another tokenizer than the default branch's."""


def vocabulary_of(deployment: Deployment, checkpoint: str, launch: Launch | None, base: Path) -> Vocabulary | None:
    """The vocabulary of a running deployment. launch: how it was started; None for an attached server.

    None if the checkpoint is not on this machine, has no weights, or has a tokenizer that cannot be read. Text is then counted in words.
    """
    try:
        if (place := local_path(checkpoint, base)) is not None:
            return read_vocabulary(place)
        seen = _environment(deployment, launch) if hub.is_id(checkpoint) else None
        if seen is None or (folder := hub.cached_folder(checkpoint, "tokenizer.json", seen)) is None:
            return None
        fetched = read_vocabulary(folder)
        pool_of("text", fetched)  # the user cannot repair a cached tokenizer that fails here, unlike that of a folder
    except (UserError, OSError):
        return None
    return fetched


def _environment(deployment: Deployment, launch: Launch | None) -> Mapping[str, str] | None:
    """The environment that locates the engine's cache on this machine; None if it uses another cache or another tokenizer."""
    commands = launch.commands if launch is not None else ()
    added = {key: value for _, _, env in commands for key, value in env.items()}
    if any(word.startswith(_OTHER_TOKENIZER) for word in chain.from_iterable(argv for _, argv, _ in commands)):
        return None
    if deployment.runtime != "docker":
        return {**os.environ, **added}
    container = deployment.container  # this machine's HF_HOME is mounted; the rest of its environment is unknown
    other_cache = not {*added, *container.env}.isdisjoint(_CACHE_VARIABLES)
    return None if other_cache or not container.hf_cache else {"HF_HOME": str(hub.hf_home(os.environ))}
