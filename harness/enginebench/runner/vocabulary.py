"""Whose words a deployment's prompts are made of: the checkpoint's, where it is on this machine or its engine has fetched it by itself.

Knows where engines keep what they fetch, and no prompt.
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

_PLACES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
"""What leads an engine to another cache."""
_ANOTHER = ("--revision", "--tokenizer")
"""How an engine is told to take another tokenizer than that of the default branch: what such flags begin with."""


def vocabulary_of(deployment: Deployment, checkpoint: str, launch: Launch | None, base: Path) -> Vocabulary | None:
    """The vocabulary of a deployment that is up. launch: how it was started, None if not by us.

    None for what is not on this machine, has no weights, or has a tokenizer nobody here can read: text is counted by words then.
    """
    try:
        if (place := local_path(checkpoint, base)) is not None:
            return read_vocabulary(place)
        seen = _environment(deployment, launch) if hub.is_id(checkpoint) else None
        if seen is None or (folder := hub.cached_folder(checkpoint, "tokenizer.json", seen)) is None:
            return None
        fetched = read_vocabulary(folder)
        pool_of("text", fetched)  # one that cannot confirm text is nobody's to mend, unlike that of a folder
    except (UserError, OSError):
        return None
    return fetched


def _environment(deployment: Deployment, launch: Launch | None) -> Mapping[str, str] | None:
    """What says where the engine's cache is, as seen from here; None where it has another one, or another tokenizer."""
    commands = launch.commands if launch is not None else ()
    added = {key: value for _, _, env in commands for key, value in env.items()}
    if any(word.startswith(_ANOTHER) for word in chain.from_iterable(argv for _, argv, _ in commands)):
        return None
    if deployment.runtime != "docker":
        return {**os.environ, **added}
    box = deployment.container  # where this machine's HF_HOME is mounted, and nothing else of its environment is known
    led_away = not {*added, *box.env}.isdisjoint(_PLACES)
    return None if led_away or not box.hf_cache else {"HF_HOME": str(hub.hf_home(os.environ))}
