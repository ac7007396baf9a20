"""Counted routing that is kept on this machine, by the content of the checkpoint that it was counted on.

`bench routing` keeps it; `--routing captured` finds it: for a file or a folder by its content, or else by what the model is called, and for
a model of the catalogue, or a random one, by its name. Does not know: who counted.
"""

from __future__ import annotations

from pathlib import Path

from enginebench.checkpoints.content import content_of
from enginebench.checkpoints.random_moe import SCHEME as RANDOM
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir
from enginebench.physics.catalogue import find_model, models
from enginebench.physics.routing import Routing, of_inputs
from enginebench.physics.routing_files import names_in, read, save

CAPTURED = "captured"
RANDOM_IDS = "random"
"""The kind of input that no traffic resembles: left out unless it is asked for, or alone."""


def folder() -> Path:
    return cache_dir() / "routing"


def keep(routing: Routing) -> Path:
    """Store counted routing under its checkpoint's content, in place of an older one. ValueError if that is not known."""
    if not routing.content:
        raise ValueError("routing of an unknown checkpoint")
    file = folder() / f"{routing.content[:16]}.npz"
    save(routing, file)
    return file


def content(checkpoint: Path) -> str:
    """What a checkpoint is kept under: the hash of its files' sampled content."""
    return content_of(checkpoint).sampled


def known_names(reference: str, experts: int) -> tuple[str, ...]:
    """What a model is called besides its file: its name in the catalogue, or the whole reference of a random one; () if neither.

    A file or folder has the catalogue's name if its own begins with that or with the hub's, and it has as many experts:
    'Qwen3-30B-A3B-Q4_K_M.gguf' is qwen3-30b-a3b.
    """
    if reference.startswith(RANDOM):
        return (RandomMoE.from_reference(reference).reference(),)
    if (entry := find_model(reference)) is not None:
        return (entry.name,)
    stem = Path(reference).name.lower()
    fitting = {
        word: each.name
        for each in models().values()
        for word in (each.name, each.hub.lower().rpartition("/")[2], *each.aliases)
        if stem.startswith(word) and each.model.experts and each.model.experts.count == experts
    }
    return (fitting[max(fitting, key=len)],) if fitting else ()


def find(reference: str, experts: int) -> Routing | None:
    """The routing that was counted on this checkpoint or, failing that, most recently on one of the same name. None if there is none."""
    path = Path(reference).expanduser()
    if path.exists() and not reference.startswith(RANDOM):
        own = folder() / f"{content(path)[:16]}.npz"
        if own.is_file():
            return read(own)
    names = set(known_names(reference, experts))
    files = sorted(folder().glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True) if names else []
    return next((read(file) for file in files if names & set(names_in(file))), None)


def need(reference: str, experts: int) -> Routing:
    """Like `find`, but raises UserError with the command that counts it."""
    found = find(reference, experts)
    if found is None:
        is_file = Path(reference).expanduser().exists() or reference.startswith(RANDOM)
        command = f"bench routing {reference}" if is_file else f"bench routing CHECKPOINT --model {reference}"
        raise UserError(f"no routing of {reference} was counted on this machine", key="routing", advice=f"count it: {command}")
    return found


def likely(routing: Routing, wanted: str = "") -> Routing:
    """The tokens of one kind of input; by default of all but random ids, which no traffic resembles."""
    if wanted:
        return of_inputs(routing, [wanted])
    real = [each for each in routing.inputs if each != RANDOM_IDS]
    return of_inputs(routing, real) if real else routing
