"""What changed over the runs of each scenario, in sentences, for the home page; computed again only for scenarios that have new runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enginebench.errors import UserError
from enginebench.metrics.change_points import FEWEST
from enginebench.report.history import history
from enginebench.report.history_changes import change_sentences
from enginebench.report.run import open_run


@dataclass
class Changes:
    """Scenario -> a hash of what its runs hold, and the sentences on them."""

    known: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def update(self, runs: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        """runs: scenario -> path and content of each run, where equal text means equal content."""
        self.known = {name: self._read(name, its) for name, its in runs.items()}

    def missing(self, runs: Mapping[str, Sequence[tuple[str, str]]]) -> bool:
        """Whether `update` would compute anything."""
        return any(self.known.get(name, ("",))[0] != _hash(its) for name, its in runs.items())

    @property
    def sentences(self) -> dict[str, tuple[str, ...]]:
        return {name: its for name, (_, its) in self.known.items()}

    def _read(self, name: str, runs: Sequence[tuple[str, str]]) -> tuple[str, tuple[str, ...]]:
        content = _hash(runs)
        if (known := self.known.get(name)) is not None and known[0] == content:
            return known
        return content, _sentences([path for path, _ in runs])


def _hash(runs: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(sorted(content for _, content in runs)).encode()).hexdigest()


def _sentences(paths: Sequence[str]) -> tuple[str, ...]:
    """Of runs of one scenario; () where they are too few."""
    if len(paths) < FEWEST:
        return ()
    try:
        found = history([open_run(path) for path in paths]).found
    except UserError:  # a run was damaged or removed meanwhile
        return ()
    return tuple(change_sentences(found)) if found.judged else ()
