"""The files that a plan measures with, and what they contain: checkpoints, data sets, traces, and files that options name.

Weights made at random are left out: their reference says everything. A file that is fetched later is identified once it is here.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from enginebench.checkpoints import hub, local_path
from enginebench.checkpoints.content import Content, content_of, named_files
from enginebench.domain import Deployment, Load
from enginebench.errors import UserError
from enginebench.workload.datasets import is_data_set, parse_reference
from enginebench.workload.trace_file import located

Contents = Mapping[str, Content]
"""'checkpoint tiny.gguf', 'prompts jsonl:chat.jsonl' or 'trace azure.csv', as the scenario names them -> what they contained."""


def files_of(deployment: Deployment, base: Path) -> Iterator[tuple[str, Path]]:
    """The files of a deployment that are on this machine."""
    checkpoint, attached = deployment.checkpoint, deployment.runtime == "attach"
    path = local_path(checkpoint, base) if not attached or checkpoint != deployment.model else None
    if path is None and not attached and hub.is_id(checkpoint):
        with suppress(OSError):
            path = hub.cached_folder(checkpoint, "config.json", os.environ)
    if path is not None:
        yield f"checkpoint {checkpoint}", path
    draft = deployment.speculation.draft if deployment.speculation is not None else None
    if draft and (path := local_path(draft, base)) is not None:
        yield f"checkpoint {draft}", path
    for name, adapter in deployment.loras.items():
        yield f"lora {name} {adapter}", base / Path(adapter).expanduser()
    for name, value in deployment.options.items():
        yield from named_files(name, value)


def files_of_load(load: Load, base: Path) -> Iterator[tuple[str, Path]]:
    """The data set and the trace of a load, as far as they are files."""
    if is_data_set(load.prompts) and (found := parse_reference(load.prompts)).kind != "hf":
        yield f"prompts {load.prompts}", base / Path(found.where).expanduser()
    if trace := load.value("trace"):
        yield f"trace {trace}", located(str(trace), base)[0]


def contents_of(deployments: Iterable[Deployment], loads: Iterable[Load], base: Path, *, whole: bool = False) -> dict[str, Content]:
    """What the files of these deployments and loads contain. UserError for one that cannot be read. whole: as `content_of`."""
    alike = {
        (d.engine, d.model, d.checkpoint, d.runtime, d.speculation, id(d.loras), id(d.options)): d for d in deployments
    }  # thousands share their files
    files = {name: path for deployment in alike.values() for name, path in files_of(deployment, base)}
    files |= {name: path for load in loads for name, path in files_of_load(load, base)}
    found: dict[str, Content] = {}
    for name, path in files.items():
        try:
            found[name] = content_of(path, whole=whole)
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", file=path) from None
    return found


def changed(then: Contents, now: Contents) -> str:
    """The names of what has changed and how: 'checkpoint tiny.gguf (sha256 1f... -> 2e...)'; empty if nothing has."""
    both = [name for name in then if name in now and not then[name].same_as(now[name])]
    return "; ".join(f"{name} ({then[name].changes(now[name])})" for name in both)


def hashes(contents: Contents) -> dict[str, str]:
    """Name -> SHA-256, with '~' before one of samples only."""
    return {name: found.sha256 or f"~{found.sampled}" for name, found in contents.items()}
