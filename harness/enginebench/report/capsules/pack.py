"""`bench pack`: a run as one file, with everything needed to check it and nothing secret."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enginebench.analysis.analysis import analyse
from enginebench.domain.formatting import counted
from enginebench.errors import UserError
from enginebench.machine.secrets import secret_variables
from enginebench.records.capsule import Manifest, write_capsule
from enginebench.records.files import sha256
from enginebench.records.run_folder import Run, open_run
from enginebench.report.capsules.contents import FIGURES, VERSION, derived_files, figures_of, inputs_of, run_files
from enginebench.report.capsules.scan import secrets_in

_SHOWN = 10


@dataclass(frozen=True)
class Packed:
    """A capsule that was written."""

    path: Path
    sha256: str
    """Of the capsule: publish it beside the file."""
    manifest: Manifest
    notes: tuple[str, ...]
    """What the capsule does not hold, one sentence each."""


def pack(run: str | Path, out: str | Path | None = None) -> Packed:
    """Write a run as one file: records, raw samples, logs, figures, hashes of every input, package lists and image digests.

    The same run makes the same bytes. run: its folder. out: default: <name of the folder>.ebz in the current folder.
    UserError when a file of it holds a secret, when it is still being measured, and when a record or a sample file is damaged.
    """
    folder = open_run(Path(run))
    target = Path(out) if out is not None else Path(f"{folder.path.resolve().name}.ebz")
    if target.is_dir():
        raise UserError("is a folder", file=target, advice=f"name the file: -o {target / folder.path.name}.ebz")
    with _unchanged(folder):
        if damage := folder.damage():
            cell, why = next(iter(damage.items()))
            raise UserError(
                f"the stored cell {cell} is damaged ({why})", file=folder.path, advice="measure it again: bench run --retry-failed"
            )
        files: dict[str, Path | bytes] = {**run_files(folder), **derived_files(folder), FIGURES: figures_of(analyse(folder))}
        _refuse_links(folder, files)
        _refuse_secrets(folder, files)
        about = {"name": folder.record.name, "created_at": folder.record.created_at, "plan_id": folder.record.plan_id}
        target.parent.mkdir(parents=True, exist_ok=True)
        manifest = write_capsule(target, VERSION, about, files)
    return Packed(target, sha256(target), manifest, tuple(_notes(folder)))


@contextlib.contextmanager
def _unchanged(run: Run) -> Iterator[None]:
    """Nobody measures into the run while the block lasts. UserError when somebody does."""
    lock = run.path / ".lock"
    with contextlib.ExitStack() as stack:
        if lock.is_file():
            file = stack.enter_context(lock.open())
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                raise UserError("is still being measured", file=run.path, advice="pack it when the run has ended") from None
        yield


def _refuse_links(run: Run, files: dict[str, Path | bytes]) -> None:
    for name, content in files.items():
        if isinstance(content, Path) and (content.is_symlink() or content.parent.is_symlink() or not content.is_file()):
            raise UserError(f"cannot be packed: {name} is a link or no file", file=run.path, advice="copy what it points to in its place")


def _refuse_secrets(run: Run, files: dict[str, Path | bytes]) -> None:
    deployments = [*(cell.deployment for cell in run.cells()), *(launch.deployment for launch in run.launches().values())]
    named = {name for d in deployments for name in (d.api_key_env, *d.container.secrets) if name}
    variables = secret_variables(named)
    found = [place for name, content in files.items() for place in secrets_in(name, content, variables)]
    if found:
        shown = "; ".join(found[:_SHOWN]) + (f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        advice = "revoke it if others could read the run; then remove it from the file, or measure the cell again without it"
        raise UserError(f"is not packed, as it holds {counted(len(found), 'secret')}: {shown}", file=run.path, advice=advice)


def _notes(run: Run) -> Iterator[str]:
    unknown = [name for name, found in inputs_of(run).items() if found is None]
    if unknown:
        yield f"no hash of {', '.join(unknown)}: the run did not record one"
    missing = sum(not run.has(cell) for cell in run.record.cells)
    if missing:
        yield f"{counted(missing, 'cell')} of the plan was not measured"
    if not (run.path / "logs").is_dir() or not any((run.path / "logs").glob("*.log")):
        yield "the run has no engine logs"
