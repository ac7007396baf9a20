"""Sorts the rows of a run into scales: what may stand in one grid. A scale has one model, kind of load, figure and set of settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TypeAlias

from enginebench.analysis.conclusion import Scale
from enginebench.analysis.labels import distinguishing_labels
from enginebench.analysis.rows import Row
from enginebench.domain import Load, load_fields
from enginebench.metrics.registry import find

Place: TypeAlias = tuple[str, str]
"""(context, level)."""
_FOLLOWS = ("extent", "client")
"""Fields that mostly follow from the level; they tell settings apart only where loads would look the same without them."""


@dataclass(frozen=True)
class Group:
    scale: Scale
    rows: tuple[tuple[int, Row], ...]
    """All rows of the model: a test may use the whole run."""
    loads: tuple[tuple[Place, Load], ...]
    """With several loads at one place only where loads that differ in their extent were not told apart."""

    def without(self, left_out: AbstractSet[Load]) -> Group | None:
        """The group without some loads; None if none remains."""
        kept = tuple((place, load) for place, load in self.loads if load not in left_out)
        if not kept:
            return None
        contexts = tuple(each for each in self.scale.contexts if any(place[0] == each for place, _ in kept))
        levels = tuple(each for each in self.scale.levels if any(place[1] == each for place, _ in kept))
        return replace(self, scale=replace(self.scale, contexts=contexts, levels=levels), loads=kept)


def groups(rows: Sequence[Row], figures: Mapping[str, str], scopes: Mapping[str, str], *, apart: bool = True) -> Iterator[Group]:
    """Every scale of a run with its loads. figures: model -> the figure that decides. scopes: model -> what its weights restrict.

    apart: loads that differ only in how much is sent, at the same level and lengths, are on different scales.
    """
    settings = _settings(list(dict.fromkeys(row.load for row in rows)), apart=apart)
    for model in dict.fromkeys(row.deployment.model for row in rows):
        its = tuple((i, row) for i, row in enumerate(rows) if row.deployment.model == model)
        kinds: dict[tuple[str, str], list[Load]] = {}
        for load in dict.fromkeys(row.load for _, row in its):
            kinds.setdefault((load.kind, settings[load]), []).append(load)
        for (kind, text), loads in kinds.items():
            names = tuple(dict.fromkeys(row.name for _, row in its if row.load in loads))
            found = find(figures[model])
            better = found[0].better if found else None
            scale = Scale(
                model, kind, text, figures[model], found[0].unit if found else "", better or "higher",
                tuple(dict.fromkeys(load.shape_text for load in sorted(loads, key=_length))),
                tuple(dict.fromkeys(load.level_text for load in sorted(loads, key=lambda load: load.level))), names, scopes.get(model, ""),
            )  # fmt: skip
            yield Group(scale, its, tuple(((load.shape_text, load.level_text), load) for load in loads))


def _length(load: Load) -> tuple[bool, float, float]:
    """Order of contexts: numbers by their size, then texts as they come."""
    made, out = load.token_lengths
    numbers = isinstance(made, int) and load.lengths is None
    return not numbers, float(made) if isinstance(made, int) else 0.0, float(out) if isinstance(out, int) else 0.0


def _settings(loads: Sequence[Load], *, apart: bool) -> dict[Load, str]:
    """What distinguishes each load besides kind, level and lengths. apart: loads that look the same then are told apart by everything."""
    fields = [its for its in load_fields().values() if its.role not in ("lengths", *_FOLLOWS)]
    varying = [its for its in fields if len({load.value(its.name) for load in loads}) > 1]
    out: dict[Load, str] = {}
    for load in loads:
        shown = [its for its in varying if its.name not in load.level_fields and load.uses(its.name)]
        out[load] = ", ".join(its.text(value) for its in shown if (value := load.value(its.name)))
    if not apart:
        return out
    alike: dict[tuple[str, ...], list[Load]] = {}
    for load, text in out.items():
        alike.setdefault((load.kind, load.shape_text, load.level_text, text), []).append(load)
    for same in alike.values():
        if len(same) > 1:
            for load, text in zip(same, distinguishing_labels(same), strict=True):
                out[load] = ", ".join(filter(None, (out[load], text)))
    return out
