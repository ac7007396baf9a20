"""The catalogue of named workloads: what is sent, without how heavy it is, and the SLO that goes with it.

A scenario names one with `workload: chat`. What it means is fixed by name and version, and its hash is that of load and SLO. Does not know
engines, or how a load is written in a scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from enginebench.domain import JSON, fingerprint
from enginebench.errors import UserError, did_you_mean

_FILE = Path(__file__).parent / "data" / "workloads.yaml"


@dataclass(frozen=True)
class Workload:
    """A named workload."""

    name: str
    version: int
    title: str
    load: Mapping[str, JSON]
    """Keys of one entry of `loads`."""
    slo: Mapping[str, JSON]
    """Keys of `slo`."""
    source: str
    """Where its figures come from."""

    @property
    def id(self) -> str:
        """'chat@1', as records have it."""
        return f"{self.name}@{self.version}"

    @property
    def hash(self) -> str:
        """Of what is sent and its limits."""
        return fingerprint({"load": dict(self.load), "slo": dict(self.slo)})


@cache
def catalogue() -> Mapping[str, Workload]:
    """Name -> workload."""
    read = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {name: Workload(name, **entry) for name, entry in read.items()}


def named(text: str) -> Workload:
    """The workload that 'chat' or 'chat@1' names. UserError for an unknown name, and for another version than the catalogue's."""
    name, _, version = text.partition("@")
    found = catalogue().get(name)
    if found is None:
        advice = f"{did_you_mean(name, catalogue())}; `bench workloads` lists them"
        raise UserError(f"unknown workload '{name}'", key="workload", advice=advice)
    if version and version != str(found.version):
        message = f"this enginebench has {found.id}, not {text}"
        raise UserError(message, key="workload", advice=f"write {found.id}, or use the version of enginebench that has {text}")
    return found
