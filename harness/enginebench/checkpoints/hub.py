"""Downloads from the Hugging Face hub for engines that do not download themselves, and finds files in an engine's hub cache.

References: `hf:ORG/NAME[@REVISION]/FILE.gguf` (one GGUF with all its parts) and `hf:ORG/NAME[@REVISION]` (a folder). They serve llama.cpp,
which runs offline, and ExLlamaV3, which loads only folders; other engines take a hub id. Interrupted downloads resume.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from enginebench.errors import UserError

SCHEME = "hf:"
_NAME = r"[A-Za-z0-9][\w.-]*"
_ID = re.compile(f"{_NAME}/{_NAME}")
_REFERENCE = re.compile(rf"hf:(?P<repository>{_NAME}/{_NAME})(@(?P<revision>[\w.-]+))?(/(?P<file>[^/@].*))?")
_PART = re.compile(r"(?P<stem>.*)-00001-of-(?P<count>[0-9]{5})\.gguf")
_COMPLETE = ".enginebench-whole"
"""Marks a completely downloaded folder."""


@dataclass(frozen=True)
class HubReference:
    repository: str
    revision: str | None
    """A branch, tag or commit; None: the default branch."""
    file: str | None
    """Path in the repository; None: all files."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The file, or all parts of a split GGUF file."""
        return () if self.file is None else parts_of(self.file)


def parts_of(file: str) -> tuple[str, ...]:
    """The names of all parts of a split GGUF file, from that of the first; any other name alone."""
    if not (split := _PART.fullmatch(file)):
        return (file,)
    return tuple(f"{split['stem']}-{n:05}-of-{split['count']}.gguf" for n in range(1, int(split["count"]) + 1))


def parse(reference: str) -> HubReference | None:
    found = _REFERENCE.fullmatch(reference)
    if not found or found["repository"].endswith(".gguf") or ".." in PurePosixPath(found["file"] or "").parts:
        return None
    return HubReference(found["repository"], found["revision"], found["file"])


def is_id(reference: str) -> bool:
    """Whether a reference is a hub id, ORG/NAME, which engines download themselves."""
    return bool(_ID.fullmatch(reference)) and not reference.endswith(".gguf")


def hf_home(env: Mapping[str, str]) -> Path:
    return Path(env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface").expanduser()


def hub_cache(env: Mapping[str, str]) -> Path:
    return Path(env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or hf_home(env) / "hub").expanduser()


def cached_folder(repository: str, file: str, env: Mapping[str, str]) -> Path | None:
    """The folder with this file of a repository's default branch in the hub cache of an engine with this environment, or None.

    Uses the documented layout (huggingface.co/docs/huggingface_hub/guides/manage-cache), because importing the library is slow. Raises
    OSError if the cache cannot be read.
    """
    folder = hub_cache(env) / f"models--{repository.replace('/', '--')}"
    if not (folder / "refs" / "main").is_file():
        return None
    snapshot = folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8", errors="replace").strip()
    return snapshot if (snapshot / file).is_file() else None


def local_path(wanted: HubReference, folder: Path) -> Path:
    """Where the file (its first part) or the repository is stored below `folder`."""
    name = wanted.repository.replace("/", "--")
    target = folder / (f"{name}@{wanted.revision}" if wanted.revision else name)
    return target if wanted.file is None else target / wanted.file


def fetch(wanted: HubReference, folder: Path, say: Callable[[str], None]) -> Path:
    """Download to `local_path` unless it is complete. Returns the file (its first part) or the repository's folder."""
    target = local_path(replace(wanted, file=None), folder)
    if wanted.file is None:
        if not (target / _COMPLETE).exists():
            _download(wanted, target, say)
            (target / _COMPLETE).touch()
        return target
    if not all((target / part).exists() for part in wanted.parts):
        _download(wanted, target, say)
    return target / wanted.file


def _download(wanted: HubReference, target: Path, say: Callable[[str], None]) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    name = f"{wanted.repository}{'@' + wanted.revision if wanted.revision else ''}"
    say(f"fetching {name} {', '.join(wanted.parts)} -> {target}")
    try:
        snapshot_download(wanted.repository, revision=wanted.revision, local_dir=target, allow_patterns=list(wanted.parts) or None)
    except GatedRepoError:
        raise UserError(f"{name} is gated", advice="accept its licence on the hub, and export HF_TOKEN") from None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"cannot fetch {name}: {' '.join(str(error).split())}", advice="check the name and the network") from None
    if missing := [part for part in wanted.parts if not (target / part).exists()]:
        raise UserError(f"{name} has no {missing[0]}", advice="look up the file's path in the repository")
