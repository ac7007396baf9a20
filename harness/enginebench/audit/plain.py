"""Reads a plain list of published statements, without `sources` and with the texts' own words, as `Claims` (docs/audit.md).

Keys of other spellings are translated, and what a configuration or a sentence states in words is read by `phrases`. A key that has no
meaning here becomes a note of its claim, a sentence without one is kept as `unread`: nothing is dropped. Does not know: physics, verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from enginebench.audit import phrases
from enginebench.audit.claims import SECTIONS
from enginebench.inputs.source import Location, Source

_KEYS: Mapping[str, str] = {
    "gpu_memory_gb": "device_memory_gb", "vram_gb": "device_memory_gb", "batch_size": "batch", "tok_s": "output_tok_s",
    "tokens_per_s": "output_tok_s", "tok_s_range": "output_tok_s_range", "input_tokens": "isl", "output_tokens": "osl",
    "tpot_ms": "ms_per_token", "itl_ms": "ms_per_token", "streams": "concurrency", "usd_per_hour": "price_per_hour",
    "usd_per_million": "price_per_million", "total_params_b": "total_b", "active_params_b": "active_b", "experts_per_token": "top_k",
}  # fmt: skip
"""Other spellings of the keys of a claim."""
_LISTS = (*SECTIONS, "memory_gb")
_SENTENCE = frozenset({"source", "says", "model", "note"})
FEATURES = "file"
"""The source of statements that name none."""


def is_plain(data: object) -> bool:
    """Whether a file has lists of statements and does not describe its sources."""
    if not isinstance(data, dict) or "sources" in data:
        return False
    return any(isinstance(data.get(section), list) for section in _LISTS) or isinstance(data.get("engine_features"), dict)


def as_claims(source: Source) -> Source:
    """The same statements in the form of `Claims`; every entry keeps the line that it has in the file."""
    reading = _Reading(source)
    data = source.data
    assert isinstance(data, dict)  # noqa: S101  # is_plain
    for section, entries in data.items():
        if section in ("title", "checkpoints"):
            reading.data[section] = entries
        elif section == "engine_features" and isinstance(entries, dict):
            for engine, has in entries.items():
                reading.put("features", {"source": FEATURES, "engine": phrases.engine_of(engine)["engine"], "has": has}, (section, engine))
        elif isinstance(entries, list | dict):
            for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
                reading.add(section, entry, (section, number))
    reading.data["sources"] = _sources(source.text, reading.data)
    return replace(source, data=reading.data, lines=reading.lines)


@dataclass
class _Reading:
    source: Source
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, int] = field(default_factory=dict)

    def put(self, section: str, entry: Mapping[str, Any], origin: Location) -> None:
        entries = self.data.setdefault(section, [])
        here: Location = (section, len(entries))
        self.lines.setdefault((section,), self.source.line(origin) or 1)
        for location in ((), *((key,) for key in entry)):
            self.lines[(*here, *location)] = self.source.line((*origin, *location)) or 1
        entries.append(dict(entry))

    def add(self, section: str, entry: Any, origin: Location) -> None:
        if not isinstance(entry, dict):
            self.put("unread", {"source": FEATURES, "says": f"{section}: {entry}"[:500]}, origin)
            return
        entry = {_KEYS.get(key, key): value for key, value in entry.items() if value is not None}
        entry.setdefault("source", FEATURES)
        if section == "memory_gb":
            self._memory(entry, origin)
        elif section not in SECTIONS:
            self._unread({"says": section, **entry}, origin)
        elif section == "hot_experts" and "experts" not in entry and phrases.hot_of(str(entry.get("says", ""))) is None:
            self._unread(entry, origin)
        else:
            self._put_known(section, _translated(section, entry), origin)

    def _put_known(self, section: str, entry: Mapping[str, Any], origin: Location) -> None:
        known = SECTIONS[section].model_fields
        self.put(section, {key: value for key, value in entry.items() if key in known}, origin)
        if strange := {key: value for key, value in entry.items() if key not in known}:
            self._unread({"source": entry["source"], "says": str(entry.get("id") or entry.get("model") or section), **strange}, origin)

    def _memory(self, entry: dict[str, Any], origin: Location) -> None:
        """Sizes by precision, and what a sentence adds about devices."""
        keys = {phrases.precision_of(key): key for key in entry if key not in _SENTENCE}
        sizes = {name: entry[key] for name, key in keys.items()}
        common = {"source": entry["source"], "model": entry.get("model")}
        old = [each for each in self.data.get("weights", ()) if (each["source"], each["model"]) == tuple(common.values())]
        new = {name: gb for name, gb in sizes.items() if not any(each["gb"].get(name) == gb for each in old)}
        if new:
            self.put("weights", {**common, "gb": new}, origin)
            here: Location = ("weights", len(self.data["weights"]) - 1, "gb")
            self.lines |= {(*here, name): self.source.line((*origin, keys[name])) or 1 for name in new}
        says = str(entry.get("says", ""))
        found = list(phrases.memory_of(says))
        for each in found:
            self.put("fits", {**common, "says": says, **({"precision": next(iter(sizes))} if sizes else {}), **each}, origin)
        if says and not found:
            self._unread(entry, origin)

    def _unread(self, entry: Mapping[str, Any], origin: Location) -> None:
        rest = ", ".join(f"{key} {value}" for key, value in entry.items() if key not in ("source", "says"))
        says = ": ".join(filter(None, (str(entry.get("says") or ""), rest)))
        self.put("unread", {"source": entry["source"], "says": says[:500]}, origin)


def _translated(section: str, entry: dict[str, Any]) -> dict[str, Any]:
    if section == "hot_experts" and "experts" not in entry:
        return entry | (phrases.hot_of(str(entry.get("says", ""))) or {})
    if section == "ratios" and not {"stated", "stated_range"} & set(entry):
        return entry | phrases.ratio_of(str(entry.get("says", "")))
    return _speed(entry) if section == "serving" else entry


def _speed(entry: dict[str, Any]) -> dict[str, Any]:
    """A speed with the keys of `Serving`. What its `config` states in words comes after what its keys state."""
    config, hardware = str(entry.pop("config", "") or ""), str(entry.get("hardware", ""))
    count = re.match(r"\s*(\d+)\s*x", hardware)
    out = {key: value for key, value in entry.items() if key not in ("engine", "precision", "hardware") or phrases.is_stated(value)}
    if "engine" in out:
        out |= phrases.engine_of(str(out["engine"]))
    if "precision" in out:
        out["precision"] = phrases.precision_of(str(out["precision"]))
    out = {**phrases.setup_of(config, int(count[1]) if count else 1), **out}
    if "hardware" in out:
        out["hardware"] = phrases.hardware_of(hardware)
    if config:
        out.setdefault("says", config)
    if "bandwidth_gb_s" not in out and (bandwidth := phrases.bandwidth_of(hardware)) is not None:
        out["bandwidth_gb_s"] = bandwidth
    return out


def _sources(text: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Every source that is named, with the title that a comment gives it ('# Source A: "Title" (Author)')."""
    described = {
        found[1]: {"title": found[2], **({"author": found[3]} if found[3] and not found[3][0].isdigit() else {})}
        for found in re.finditer(r'Source (\w+):\s*(?:[a-z ]+ )?"([^"]+)"(?:\s*\(([^)]+)\))?', text)
    }
    named = {str(each["source"]) for entries in data.values() if isinstance(entries, list) for each in entries}
    return {name: described.get(name, {"title": f"source {name}" if name != FEATURES else "the file itself"}) for name in sorted(named)}
