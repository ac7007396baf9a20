"""`bench site`: the pages of all runs in a folder, written as static files; a second build writes only what changed.

A file `.enginebench-site.json` in the output lists what was written and from what. Runs whose content has not changed since are neither
read nor drawn again, unless enginebench itself has changed. A file that the list does not name is never replaced or removed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from enginebench.analysis.run_index import run_index
from enginebench.errors import UserError
from enginebench.machine.folders import resource_dir
from enginebench.records.files import remove
from enginebench.report.html import render_html
from enginebench.report.run import Run, open_run
from enginebench.report.site.assets import asset_files, assets, place
from enginebench.report.site.changes import Changes
from enginebench.report.site.entry import Entry, entry_data, entry_of, read_entry
from enginebench.report.site.pages import compare_page, home_page, index_json, run_data_path, run_page_path
from enginebench.report.site.stored import SiteRun, StoredRuns

MANIFEST = ".enginebench-site.json"
_SHARED = ("index.html", "compare.html", "data/index.json", ".nojekyll")
_FORMAT = 1
"""Of the manifest. One of another format is not read: everything is written again."""


@dataclass(frozen=True)
class Site:
    """What `build_site` did."""

    path: Path
    runs: int
    rendered: int
    """Runs whose pages were made; those of the others were there already."""
    written: tuple[str, ...]
    """Files that are new or changed, relative to `path`."""
    removed: tuple[str, ...]
    """Files of runs that are gone."""
    size: int
    """Bytes of all its files."""
    refused: tuple[str, ...]
    """Runs that were left out, with the reason."""


@dataclass
class _Output:
    """The files of the site, and what is known about them from the build before."""

    path: Path
    runs: dict[str, tuple[str, Entry]] = field(default_factory=dict)
    """Slug -> fingerprint and entry, of runs whose files are there."""
    files: set[str] = field(default_factory=set)
    changes: Changes = field(default_factory=Changes)
    written: list[str] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        """Write a file unless it holds the text already."""
        file, data = self.path / name, text.encode()
        if name not in self.files and file.exists():
            raise UserError("is in the way: the site did not write it", file=file, advice="move it, or choose another folder with -o")
        self.files.add(name)
        if file.is_file() and file.stat().st_size == len(data) and file.read_bytes() == data:
            return
        _replace(file, data)
        self.written.append(name)

    def has(self, stored: SiteRun) -> bool:
        names = _files_of(stored.slug)
        known = self.runs.get(stored.slug)
        return known is not None and known[0] == stored.fingerprint and all((self.path / name).is_file() for name in names)

    def save(self) -> None:
        runs = {slug: {"fingerprint": its, "entry": entry_data(entry)} for slug, (its, entry) in sorted(self.runs.items())}
        data = {"format": _FORMAT, "made_by": code_hash(), "runs": runs, "changes": self.changes.known, "files": sorted(self.files)}
        _replace(self.path / MANIFEST, json.dumps(data, ensure_ascii=False).encode())


def build_site(
    folder: str | Path, output: str | Path, *, index: str | None = None, on_run: Callable[[str], None] = lambda _: None
) -> Site:  # fmt: skip
    """Write the site of all runs in a folder, or in a store at a URL. on_run: called with the name of each run whose pages are made.

    index: a shared index, as for `run_index`. output: a new or empty folder, or one that this function has written; only what changed is
    written again. UserError for any other folder, and where a file cannot be written.
    """
    output, all_runs = Path(output), StoredRuns(folder)
    found = all_runs.find()
    out, refused = _open(output), list(found.refused)
    try:
        out.save()
        for name, text in asset_files().items():
            out.write(name, text)
        rendered = 0
        for stored in (stored for stored in found.runs if not out.has(stored)):
            on_run(stored.path.name)
            rendered += _render(stored, out, refused)
        entries = [out.runs[stored.slug][1] for stored in found.runs if stored.slug in out.runs]
        out.changes.update(_by_scenario(found.runs, out), lambda: run_index(all_runs.named, index=index))
        for name, text in shared_pages(entries, out.changes.sentences).items():
            out.write(name, text)
        removed = _remove_others(out, {entry.id for entry in entries})
        out.save()
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", file=output, advice="name another folder with -o") from None
    except (KeyboardInterrupt, UserError):  # what is written stays known
        out.save()
        raise
    size = sum((output / name).stat().st_size for name in out.files)
    return Site(output, len(entries), rendered, tuple(out.written), tuple(removed), size, tuple(refused))


def _by_scenario(runs: Sequence[SiteRun], out: _Output) -> dict[str, list[tuple[str, str]]]:
    """Scenario -> name and fingerprint of its runs that could be read."""
    found: dict[str, list[tuple[str, str]]] = {}
    for stored in runs:
        if stored.slug in out.runs:
            found.setdefault(stored.record.name, []).append((stored.name, out.runs[stored.slug][0]))
    return found


def shared_pages(entries: Sequence[Entry], changes: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    """Path -> content of what belongs to no single run."""
    return dict(zip(_SHARED, (home_page(entries, changes), compare_page(), index_json(entries), ""), strict=True))


def run_files(slug: str, run: Run) -> dict[str, str]:
    """Path -> content of the page and the data of a run."""
    data = json.dumps(json.loads(run.report("json")), ensure_ascii=False, separators=(",", ":")) + "\n"
    return {run_page_path(slug): render_html(run.folder, run.analysis, place(1, "report")), run_data_path(slug): data}


def _files_of(slug: str) -> tuple[str, str]:
    return run_page_path(slug), run_data_path(slug)


def _render(stored: SiteRun, out: _Output, refused: list[str]) -> bool:
    """Make and write the files of a run; False where it cannot be read, with the reason in refused."""
    out.runs.pop(stored.slug, None)
    try:
        run = open_run(stored.path)
        files, entry = run_files(stored.slug, run), entry_of(stored.slug, run)
    except UserError as error:
        refused.append(f"{stored.path.name}: {error.message}")
        return False
    for name, text in files.items():
        out.write(name, text)
    out.runs[stored.slug] = (stored.fingerprint, entry)
    return True


def _open(path: Path) -> _Output:
    """The output folder with what is known about it."""
    if path.exists() and not path.is_dir():
        raise UserError("is not a folder", file=path, advice="name a new folder with -o")
    if not (path / MANIFEST).is_file():
        if path.is_dir() and any(path.iterdir()):
            raise UserError("has files that `bench site` did not write", file=path, advice="name a new or empty folder with -o")
        return _Output(path)
    try:
        data: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = {name for name in data["files"] if isinstance(name, str) and (path / name).resolve().is_relative_to(path.resolve())}
        if data["format"] != _FORMAT or data["made_by"] != code_hash():
            return _Output(path, files=files)
        runs = {slug: (its["fingerprint"], read_entry(its["entry"])) for slug, its in data["runs"].items()}
        changes = {name: (content, tuple(sentences)) for name, (content, sentences) in data["changes"].items()}
        return _Output(path, runs, files, Changes(changes))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError("is damaged", file=path / MANIFEST, advice="remove the whole folder: the site can be made again") from None


def _remove_others(out: _Output, slugs: set[str]) -> list[str]:
    """Remove what belongs to runs that are gone, and assets that no page uses."""
    kept = {*_SHARED, *asset_files(), *(name for slug in slugs for name in _files_of(slug))}
    removed = sorted(out.files - kept)
    for name in removed:
        remove(out.path / name)
    out.files -= set(removed)
    out.runs = {slug: its for slug, its in out.runs.items() if slug in slugs}
    return removed


def _replace(file: Path, data: bytes) -> None:
    """A reader sees the old content or the new. Nothing waits for the disk: the site can be made again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@cache
def code_hash() -> str:
    """Changes with everything that makes pages: the code of enginebench, its templates, the shared files."""
    package = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256(f"{sorted(assets().values())}".encode())
    for file in (
        *sorted(package.rglob("*.py")),
        *sorted(package.rglob("*.yaml")),
        *sorted(resource_dir("reports/templates").rglob("*.j2")),
    ):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
