"""Files of a model hub that the harness fetches itself: one GGUF with all its parts, or a whole folder, from a revision of a repository;
and where engines keep what they fetch.

`hf:ORG/NAME[@REVISION]/FILE.gguf` and `hf:ORG/NAME[@REVISION]`. Engines that take a hub id fetch by themselves; llama.cpp is kept offline
and ExLlamaV3 loads folders only, and both need what a hub keeps under a path or a revision. Resumes what was interrupted. It does not
know how large a file is before it asks for it.
"""

from __future__ import annotations

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
_WHOLE = ".enginebench-whole"


@dataclass(frozen=True)
class OnHub:
    """file: inside the repository; None: all of it. revision: a branch, a tag or a commit; None: the default branch."""

    repository: str
    revision: str | None
    file: str | None

    @property
    def parts(self) -> tuple[str, ...]:
        """The files: all of them where the first one's name says that there are several."""
        if self.file is None:
            return ()
        if not (split := _PART.fullmatch(self.file)):
            return (self.file,)
        return tuple(f"{split['stem']}-{n:05}-of-{split['count']}.gguf" for n in range(1, int(split["count"]) + 1))


def parse(reference: str) -> OnHub | None:
    """What an 'hf:' reference means; None when it cannot be read."""
    found = _REFERENCE.fullmatch(reference)
    if not found or found["repository"].endswith(".gguf") or ".." in PurePosixPath(found["file"] or "").parts:
        return None
    return OnHub(found["repository"], found["revision"], found["file"])


def is_id(reference: str) -> bool:
    """Whether a reference is a repository's name, as engines take it that fetch by themselves: ORG/NAME."""
    return bool(_ID.fullmatch(reference)) and not reference.endswith(".gguf")


def home(env: Mapping[str, str]) -> Path:
    """Where the Hugging Face libraries of an engine with this environment keep what is theirs."""
    return Path(env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface").expanduser()


def cached(repository: str, file: str, env: Mapping[str, str]) -> Path | None:
    """The folder with this file of a repository's default branch in the cache of such an engine; None where it was not fetched.

    The layout is documented (huggingface.co/docs/huggingface_hub/guides/manage-cache); to import the library takes longer than all else
    that an attached server's run begins with. Raises OSError for what cannot be read.
    """
    cache = Path(env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or home(env) / "hub").expanduser()
    folder = cache / f"models--{repository.replace('/', '--')}"
    if not (folder / "refs" / "main").is_file():
        return None
    snapshot = folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8", errors="replace").strip()
    return snapshot if (snapshot / file).is_file() else None


def place(wanted: OnHub, keep: Path) -> Path:
    """Where the file (its first part) or the folder is kept, below `keep`, once it has been fetched."""
    name = wanted.repository.replace("/", "--")
    here = keep / (f"{name}@{wanted.revision}" if wanted.revision else name)
    return here if wanted.file is None else here / wanted.file


def fetch(wanted: OnHub, keep: Path, say: Callable[[str], None]) -> Path:
    """The file (its first part) or the folder, below `keep`. What is there in full is not asked for again."""
    here = place(replace(wanted, file=None), keep)
    if wanted.file is None:
        if not (here / _WHOLE).exists():
            _get(wanted, here, say)
            (here / _WHOLE).touch()
        return here
    if not all((here / part).exists() for part in wanted.parts):
        _get(wanted, here, say)
    return here / wanted.file


def _get(wanted: OnHub, here: Path, say: Callable[[str], None]) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    what = f"{wanted.repository}{'@' + wanted.revision if wanted.revision else ''}"
    say(f"fetching {what} {', '.join(wanted.parts)} -> {here}")
    try:
        snapshot_download(wanted.repository, revision=wanted.revision, local_dir=here, allow_patterns=list(wanted.parts) or None)
    except GatedRepoError:
        raise UserError(f"{what} is gated", advice="accept its licence on the hub, and export HF_TOKEN") from None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"cannot fetch {what}: {' '.join(str(error).split())}", advice="is the name right, and the hub in reach?") from None
    if lacking := [part for part in wanted.parts if not (here / part).exists()]:
        raise UserError(f"{what} has no {lacking[0]}", advice="look the file's path up in the repository")
