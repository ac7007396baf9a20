"""`bench export`: a run in the format of another program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enginebench.errors import UserError, did_you_mean
from enginebench.records.files import replace_atomically
from enginebench.report.exporter import Exporter, Material, all_exporters
from enginebench.report.run import Run, open_run


@dataclass(frozen=True)
class Exported:
    """A run in another format."""

    format: str
    files: Mapping[str, bytes]
    """Name -> content; formats with a file per cell have several."""
    notes: tuple[str, ...]
    """What the format does not hold, one sentence each."""

    def write(self, target: str | Path) -> tuple[Path, ...]:
        """Write the files and return their paths. target: a file if there is one file and the target is no folder, else a folder."""
        path = Path(target)
        single = len(self.files) == 1 and not path.is_dir()
        if not single and path.exists() and not path.is_dir():
            raise UserError(f"--to {self.format} writes {len(self.files)} files: that is no folder", file=path, advice="name a folder")
        written = []
        for name, content in self.files.items():
            file = path if single else path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_atomically(file, lambda part, content=content: part.write_bytes(content))  # type: ignore[misc]  # a lambda with a default
            written.append(file)
        return tuple(written)


def export(run: Run | str | Path, to: str) -> Exported:
    """A run in another format; nothing is written until `Exported.write`.

    run: a run, its folder, or a capsule. to: a name of `export_formats`. UserError for an unknown format, and for a run without figures.
    """
    opened = run if isinstance(run, Run) else open_run(run)
    chosen = _named(to)
    material = Material(opened.analysis, opened.folder)
    files = dict(chosen.write(material))
    if not files:
        message = f"nothing to export to {to}" + (f": {'; '.join(material.notes)}" if material.notes else ": no cell has figures")
        raise UserError(message, file=opened.path)
    return Exported(to, files, material.notes)


def export_formats() -> dict[str, str]:
    """Name of each format -> what it is and who reads it."""
    return {name: f"{each.title}; read by {each.read_by}" for name, each in all_exporters().items()}


def _named(to: str) -> Exporter:
    known = all_exporters()
    if to not in known:
        raise UserError(f"unknown format '{to}'", key="--to", advice=did_you_mean(to, known))
    return known[to]
