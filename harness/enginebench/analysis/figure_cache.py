"""Keeps the figures of cells, so that a run is computed once: one file for a run, in the cache folder. It may be deleted at any time.

A result is found again by the hash of all that it was computed from: the cell's record and raw samples, the record of its server start, the
facts of the run, the SLO and prices, the code of metrics and checks with their data, a user's catalogues and the files of weights. The
hashes are of the content that is read now, so a result is never that of older content. A file with a wrong checksum is ignored. It is
replaced as a whole: of two processes that write at the same time one wins, and what the other had is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from enginebench.analysis import dependencies
from enginebench.analysis.cell_result import CellResult
from enginebench.domain import fingerprint, plain, plain_object
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir
from enginebench.metrics.context import RunContext
from enginebench.metrics.hardware import Hardware
from enginebench.metrics.registry import metrics
from enginebench.records.cell import CellRecord
from enginebench.records.counters import Gauge
from enginebench.records.files import replace_atomically
from enginebench.records.window import Window
from enginebench.validity import CacheProof, Reason, all_checks

_MOST_BYTES = 500e6
"""Of all files together; those that were written longest ago are removed."""
_UNUSED = ("cells", "probes", "searches")
"""Fields of a run's record that change while it is measured and decide no figure."""


def folder() -> Path:
    return cache_dir() / "figures"


class FigureCache:
    """What is known of the cells of one run, in one context (SLO, prices)."""

    def __init__(self, run: Path, context: RunContext, *, part: bool = False) -> None:
        """part: only some cells will be asked for, and the others are kept as well."""
        self._context = context
        self._base = self._of_run() if _all_hashed() else None
        self._launches: dict[str, str] = {}
        self._changed = False
        name = hashlib.sha256(f"{run.resolve()}\n{self._base}".encode(errors="surrogateescape")).hexdigest()[:24]
        self._file = folder() / f"{name}.json"
        self._known = _read(self._file) if self._base is not None else {}
        self._used: dict[str, Any] = dict(self._known) if part else {}

    @property
    def on(self) -> bool:
        """Whether anything is kept: a metric or check that is not from this package turns it off."""
        return self._base is not None

    def _of_run(self) -> str:
        context = self._context
        record = {name: value for name, value in plain_object(context.record).items() if name not in _UNUSED} if context.record else None
        return fingerprint(
            {
                "code": dependencies.code_hash(), "run": record, "slo": plain(context.slo), "prices": plain(context.prices),
                "catalogues": plain(dependencies.catalogues()),
            }
        )  # fmt: skip

    def _key(self, record: CellRecord, digest: str, samples: str) -> str | None:
        """None: the result must not be kept."""
        weights = dependencies.weights(record.deployment)
        if self._base is None or weights is None:
            return None
        if record.launch_id not in self._launches:
            launch = self._context.launches.get(record.launch_id)
            known = plain_object({"launch": plain(launch), "quality": plain(self._context.quality_of(record))})
            self._launches[record.launch_id] = fingerprint(known)
        parts = (self._base, digest, samples, self._launches[record.launch_id], str(weights))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def find(self, record: CellRecord, digest: str, samples: str) -> Sequence[CellResult] | None:
        """The results of a cell, one for each phase; None if they are not known. digest, samples: of its record and of its raw samples."""
        entry = self._known.get(record.id)
        if entry is None or entry["key"] != self._key(record, digest, samples):
            return None
        self._used[record.id] = entry
        phases = {phase.index: phase for phase in record.load.phases()}
        return [_unpacked(data, record, phases) for data in entry["results"]]

    def keep(self, record: CellRecord, digest: str, samples: str, results: Sequence[CellResult]) -> None:
        key = self._key(record, digest, samples)
        if key is not None:
            self._used[record.id] = {"key": key, "results": [_packed(result) for result in results]}
            self._changed = True

    def save(self) -> None:
        """Write what is new. A cache that cannot be written is none."""
        if not self._changed:
            return
        with contextlib.suppress(OSError, UserError):
            folder().mkdir(parents=True, exist_ok=True)
            text = json.dumps(self._used, separators=(",", ":"), default=_of_numpy).encode()
            replace_atomically(self._file, lambda part: part.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text))
            _remove_oldest()
        self._changed = False


def _all_hashed() -> bool:
    """Whether all metrics and checks are from files of this package, whose content is hashed."""
    functions = [*(each.compute for each in metrics().values()), *(each.function for each in all_checks())]
    files = {inspect.unwrap(each).__code__.co_filename for each in functions}
    return all(Path(file).resolve().is_relative_to(dependencies.PACKAGE) and Path(file).is_file() for file in files)


def _read(file: Path) -> Mapping[str, Any]:
    """Cell -> its key and results; empty without a file, or if it is damaged."""
    try:
        digest, _, text = file.read_bytes().partition(b"\n")
        whole = hashlib.sha256(text).hexdigest().encode() == digest
        return dict(json.loads(text)) if whole else {}
    except (OSError, ValueError, TypeError):
        return {}


def _remove_oldest() -> None:
    stats = sorted(((file, file.stat()) for file in folder().glob("*.json")), key=lambda each: each[1].st_mtime)
    spare = sum(stat.st_size for _, stat in stats) - _MOST_BYTES
    for file, stat in stats:
        if spare <= 0:
            break
        file.unlink(missing_ok=True)
        spare -= stat.st_size


def _of_numpy(value: Any) -> Any:
    return value.item()


# -- a result as plain data ------------------------------------------------------------------------------------------------------


_APART = ("record", "phase", "log", "reasons", "window", "cache", "gauges", "hardware", "estimate")
_PLAIN = tuple(each.name for each in fields(CellResult) if each.name not in _APART)


def _packed(result: CellResult) -> dict[str, Any]:
    """All of a result but its record and the log, which only failed cells have."""
    return {
        **{name: getattr(result, name) for name in _PLAIN},
        "phase": result.phase.index if result.phase is not None else None,
        "reasons": [[each.check.id, each.severity, each.detail, each.advice, each.excess] for each in result.reasons],
        "window": vars(result.window) if result.window is not None else None,
        "cache": vars(result.cache),
        "gauges": {name: vars(each) for name, each in result.gauges.items()},
        "hardware": vars(result.hardware),
        "estimate": vars(result.estimate) if result.estimate is not None else None,
    }


def _unpacked(data: Mapping[str, Any], record: CellRecord, phases: Mapping[int, Any]) -> CellResult:
    hardware = Hardware(**data["hardware"])
    hardware = replace(hardware, devices=tuple(hardware.devices), capped=tuple(hardware.capped), shared=tuple(hardware.shared))
    return CellResult(
        record,
        **{name: data[name] for name in _PLAIN},
        phase=None if data["phase"] is None else phases[data["phase"]],
        reasons=tuple(Reason(_checks()[check], *rest) for check, *rest in data["reasons"]),
        window=None if data["window"] is None else Window(**data["window"]),
        cache=CacheProof(**data["cache"]),
        gauges={name: Gauge(**each) for name, each in data["gauges"].items()},
        hardware=hardware,
        estimate=None if data["estimate"] is None else _estimate(data["estimate"]),
    )


def _estimate(data: Mapping[str, Any]) -> Any:
    from enginebench.physics.expectation import PhysicalEstimate  # a run without an estimate leaves the room out

    return PhysicalEstimate(**data)


@cache
def _checks() -> Mapping[str, Any]:
    return {check.id: check for check in all_checks()}
