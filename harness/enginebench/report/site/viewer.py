"""The pages of a site, made when they are asked for from a folder whose runs come, go on and end. Knows no sockets.

Nothing is served from disk: an address is looked up among the pages there are, and a page is made from the records of its run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.analysis.run_index import RunIndex, run_index
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir
from enginebench.records.files import write_atomically
from enginebench.records.live import Live, read_live
from enginebench.report.run import open_run
from enginebench.report.site.assets import asset_files
from enginebench.report.site.build import code_hash, run_files
from enginebench.report.site.changes import Changes
from enginebench.report.site.entry import Entry, entry_data, entry_of, read_entry, unread_entry
from enginebench.report.site.follow import Follower
from enginebench.report.site.pages import Running, compare_page, home_page, index_json
from enginebench.report.site.stored import Signature, SiteRun, StoredRuns

_KEPT = 16
"""Reports that are kept, because making one takes a while."""
_SAVE_EVERY = 20
_LOOK_EVERY_S = 3.0
_REFRESH_EVERY_S = 30.0
"""How often a store is asked for what is new."""


@dataclass(frozen=True)
class Redirect:
    to: str
    """Relative to the address that was asked for."""


class Viewer:
    """Answers for the pages of one folder of runs, or of a single run."""

    def __init__(self, folder: str | Path, index: str | None = None) -> None:
        self._index = index
        self._stored = StoredRuns(folder)
        self._making, self._following = threading.Lock(), threading.Lock()
        self._reports: OrderedDict[tuple[str, Signature], dict[str, str]] = OrderedDict()
        self._followers: dict[str, Follower] = {}
        self._read = _Read(self._stored.folder)
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read_all, name="reader of runs", daemon=True)

    def start(self) -> None:
        """Begin to read the runs that have not been read before, the newest first."""
        self._reader.start()

    def close(self) -> None:
        self._stop.set()
        if self._reader.is_alive():
            self._reader.join()

    def first_page(self) -> str:
        """The page to open: of a single run its own, which follows it while it goes on."""
        runs = self._stored.find().runs
        if len(runs) != 1 or runs[0].path != self._stored.folder:
            return ""
        return f"{'runs' if read_live(runs[0].path) is None else 'live'}/{runs[0].slug}.html"

    def page(self, path: str) -> str | Redirect | None:
        """The content at a path of the site, without the leading slash; None: there is none. UserError where a run cannot be read."""
        kind, _, name = path.rpartition("/")
        if kind == "assets":
            return asset_files().get(path)
        if path == "compare.html":
            return compare_page()
        runs = {stored.slug: stored for stored in self._stored.find().runs}
        if path in ("", "index.html"):
            return home_page(self._entries(runs), self._read.changes.sentences, live=True, running=self._running(runs))
        if path == "data/index.json":
            return index_json(self._entries(runs))
        if path == "live.json":
            return self._news(runs)
        slug, _, suffix = name.rpartition(".")
        if (stored := runs.get(slug)) is None or (kind, suffix) not in (("runs", "html"), ("data/runs", "json"), ("live", "html")):
            return None
        return self._live(stored) if kind == "live" else self._report(stored)[path]

    def _report(self, stored: SiteRun) -> dict[str, str]:
        key = (stored.slug, stored.signature)
        with self._making:
            if key not in self._reports:
                self._reports[key] = run_files(stored.slug, open_run(stored.path))
                if len(self._reports) > _KEPT:
                    self._reports.popitem(last=False)
            self._reports.move_to_end(key)
            return self._reports[key]

    def _live(self, stored: SiteRun) -> str | Redirect:
        live = read_live(stored.path)
        if live is None:
            self._followers.pop(stored.slug, None)
            return Redirect(f"../runs/{stored.slug}.html")
        with self._following:
            return self._followers.setdefault(stored.slug, Follower(stored)).page(live)

    def _news(self, runs: dict[str, SiteRun]) -> str:
        """Changes whenever the home page does: short, because browsers ask for it all the time."""
        state = [(entry.id, entry.cells, entry.trust) for entry in self._entries(runs)]
        now = [(each.id, each.step, each.stored, each.planned) for each in self._running(runs)]
        return json.dumps(
            {
                "version": hashlib.sha256(repr((state, now, self._read.changes.sentences)).encode()).hexdigest()[:16],
                "running": [each[0] for each in now],
            }
        )

    def _running(self, runs: dict[str, SiteRun]) -> list[Running]:
        found = ((stored, read_live(stored.path)) for stored in runs.values())
        return [_running(stored, live) for stored, live in found if live is not None]

    def _entries(self, runs: dict[str, SiteRun]) -> list[Entry]:
        return [self._read.entry(stored) or _unread(stored) for stored in runs.values()]

    def _read_all(self) -> None:
        """Read runs as long as there are unread ones, but none while a run goes on, which it would disturb."""
        refreshed = time.monotonic()
        while not self._stop.wait(_LOOK_EVERY_S):
            with contextlib.suppress(UserError, OSError):
                if time.monotonic() - refreshed > _REFRESH_EVERY_S:
                    self._stored.refresh()
                    refreshed = time.monotonic()
                self._read_once()

    def _read_once(self) -> None:
        runs = self._stored.find().runs
        if any(read_live(stored.path) is not None for stored in runs):
            return
        unread = next((stored for stored in reversed(runs) if not self._read.knows(stored)), None)
        while unread is not None and not self._stop.is_set():
            self._read.add(unread)
            unread = next((stored for stored in reversed(runs) if not self._read.knows(stored)), None)
        if not self._stop.is_set():
            self._read.update_changes(runs, lambda: run_index(self._stored.named, index=self._index))
        self._read.save()


def _running(stored: SiteRun, live: Live) -> Running:
    return Running(stored.slug, stored.record.name, live.step, live.deployment, live.done, live.planned)


def _unread(stored: SiteRun) -> Entry:
    return unread_entry(stored.slug, stored.record, stored=sum(1 for _ in (stored.path / "cells").glob("*.json")))


class _Read:
    """What is known about the runs that have been read, also by an earlier process."""

    def __init__(self, folder: Path) -> None:
        self._file = cache_dir() / "view" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]}.json"
        self._known: dict[str, tuple[Signature, Entry | None]] = {}
        self.changes = Changes()
        """What changed over the runs of each scenario."""
        self._unsaved = 0
        self._load()

    def knows(self, stored: SiteRun) -> bool:
        known = self._known.get(stored.slug)
        return known is not None and known[0] == stored.signature

    def entry(self, stored: SiteRun) -> Entry | None:
        return self._known[stored.slug][1] if self.knows(stored) else None

    def add(self, stored: SiteRun) -> None:
        try:
            entry: Entry | None = entry_of(stored.slug, open_run(stored.path))
        except UserError:
            entry = None  # its page says why
        self._known[stored.slug] = (stored.signature, entry)
        self._unsaved += 1
        if self._unsaved >= _SAVE_EVERY:
            self.save()

    def update_changes(self, runs: Sequence[SiteRun], index: Callable[[], RunIndex]) -> None:
        """Of the runs that have been read."""
        by_name: dict[str, list[tuple[str, str]]] = {}
        for stored in runs:
            if self.entry(stored) is not None:
                by_name.setdefault(stored.record.name, []).append((stored.name, repr(stored.signature)))
        if self.changes.missing(by_name):
            self.changes.update(by_name, index)
            self._unsaved += 1

    def save(self) -> None:
        if not self._unsaved:
            return
        runs = {slug: [signature, entry_data(entry)] for slug, (signature, entry) in self._known.items() if entry is not None}
        data = {"made_by": code_hash(), "runs": runs, "changes": self.changes.known}
        self._unsaved = 0
        with contextlib.suppress(OSError, UserError):  # only costs time when it is missing
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, json.dumps(data, ensure_ascii=False))

    def _load(self) -> None:
        """What an earlier process has kept; nothing where that is missing, damaged or of other code."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            data = json.loads(self._file.read_text(encoding="utf-8"))
            if data["made_by"] == code_hash():
                runs: dict[str, tuple[Signature, Entry | None]] = {
                    slug: (tuple(map(tuple, signature)), read_entry(entry)) for slug, (signature, entry) in data["runs"].items()
                }
                changes = {name: (content, tuple(sentences)) for name, (content, sentences) in data["changes"].items()}
                self._known, self.changes = runs, Changes(changes)
