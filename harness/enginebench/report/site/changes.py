"""What changed over the runs of each scenario, in sentences, for the home page; computed again only for scenarios that have new runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from enginebench.analysis.history import FIGURES, read_history
from enginebench.analysis.run_index import RunIndex
from enginebench.metrics.change_points import FEWEST
from enginebench.report.history_changes import change_sentences


@dataclass
class Changes:
    """Scenario -> a hash of what its runs hold, and the sentences on them."""

    known: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def update(self, runs: Mapping[str, Sequence[tuple[str, str]]], index: Callable[[], RunIndex]) -> None:
        """runs: scenario -> name in the index and content of each run, where equal text means equal content.
        index: opens the index over runs, if anything has to be computed.
        """
        self.known = {name: self._read(name, its, index) for name, its in runs.items()}

    def missing(self, runs: Mapping[str, Sequence[tuple[str, str]]]) -> bool:
        """Whether `update` would compute anything."""
        return any(self.known.get(name, ("",))[0] != _hash(its) for name, its in runs.items())

    @property
    def sentences(self) -> dict[str, tuple[str, ...]]:
        return {name: its for name, (_, its) in self.known.items()}

    def _read(self, name: str, runs: Sequence[tuple[str, str]], index: Callable[[], RunIndex]) -> tuple[str, tuple[str, ...]]:
        content = _hash(runs)
        if (known := self.known.get(name)) is not None and known[0] == content:
            return known
        return content, _sentences([run for run, _ in runs], index)


def _hash(runs: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(repr(sorted(content for _, content in runs)).encode()).hexdigest()


def _sentences(runs: Sequence[str], index: Callable[[], RunIndex]) -> tuple[str, ...]:
    """Of runs of one scenario; () where they are too few."""
    if len(runs) < FEWEST:
        return ()
    found = read_history(index().nights(FIGURES, runs=runs))
    return tuple(change_sentences(found)) if found.judged else ()
