"""The sections of a report, one file each, and their order. A new file in this folder is a new section; nothing else lists sections."""

from __future__ import annotations

from functools import cache

from enginebench.machine.folders import modules_in
from enginebench.report.section import Section

ORDER = (
    "tuning", "grid", "highest-load", "frontier", "quality", "ttft", "tpot", "throughput", "context", "goodput", "within", "classes",
    "cost", "trust", "fairness", "table", "speculation", "distribution-ttft", "distribution-tpot", "distribution-itl",
    "engine-internals", "auto-repeats", "parity", "*", "machine", "provenance", "definitions",
)  # fmt: skip
"""Ids in the order of the page. '*' stands for the sections that are not named here, in alphabetical order."""


@cache
def all_sections() -> tuple[Section, ...]:
    """Every section, in the order of the page. ValueError for an id that two sections have."""
    found: dict[str, Section] = {}
    for module in modules_in(__name__):
        for section in vars(module).values():
            if isinstance(section, Section) and found.setdefault(section.id, section) is not section:
                raise ValueError(f"two sections have the id '{section.id}'; the second one is in {module.__name__.rpartition('.')[2]}.py")
    place = {id_: i for i, id_ in enumerate(ORDER)}
    return tuple(sorted(found.values(), key=lambda section: (place.get(section.id, place["*"]), section.id)))
