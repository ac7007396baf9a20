"""Makes prompts for one running engine: `enginebench.workload.make_prompts` with what is known about the engine's tokenizer."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from enginebench.adapter import Launch
from enginebench.checkpoints import Vocabulary, hub, local_path, read_vocabulary
from enginebench.domain import Deployment, Load
from enginebench.errors import UserError
from enginebench.workload import Prompt, TextScale, make_prompts
from enginebench.workload.pools import pool_of

_CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
"""Environment variables that point an engine to another cache."""
_OTHER_TOKENIZER = ("--revision", "--tokenizer")
"""Beginnings of flags that select another tokenizer than the default branch's."""


@dataclass
class PromptSource:
    """What is known about how one engine counts the tokens of a prompt."""

    base: Path = Path()
    """Folder that relative paths of data sets and traces start from."""
    max_context: int | None = None
    """Most tokens of a recorded prompt with its output."""
    vocabulary: Vocabulary | None = None
    """The engine's vocabulary; None if it cannot be read here."""
    scales: dict[str, TextScale] = field(default_factory=dict)
    """Kind of text -> how the engine counts it; measured by `priming.fit_text_scale`."""
    doubts: dict[str, str | None] = field(default_factory=dict)
    """Kind of text -> why its scale could not be measured, so that lengths are guesses."""

    def make(self, load: Load, count: int, *, salt: str) -> list[Prompt]:
        """The first `count` prompts of a load."""
        scale = self.scales.get(kind_of_text(load))
        return make_prompts(self.vocabulary, load, count, salt=salt, scale=scale, base=self.base, limit=self.max_context)


def kind_of_text(load: Load) -> str:
    """Loads with the same kind have the same tokens per word and the same tokens added to each prompt: a template, and tools."""
    words = (load.api, "random" if load.prompts == "random" else "text", load.tools)
    return " ".join(word for word in words if word)


def vocabulary_of(deployment: Deployment, checkpoint: str, launch: Launch | None, base: Path) -> Vocabulary | None:
    """The vocabulary of a running deployment, from its checkpoint or from the cache of an engine that downloads checkpoints itself.
    launch: how it was started; None for an attached server. None if the checkpoint is not on this machine, has no weights, or has a
    tokenizer that cannot be read. Text is then counted in words."""
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
