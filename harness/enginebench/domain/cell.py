"""One point of a sweep, with the ids that name its record and its server start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from enginebench.domain.deployment import Deployment
from enginebench.domain.ids import canonical, fingerprint
from enginebench.domain.load import Load

Status: TypeAlias = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Cell:
    """One point of the sweep: a deployment under a load, once. Its id names its record."""

    deployment: Deployment
    load: Load
    repeat: int = 0

    @cached_property
    def id(self) -> str:
        return fingerprint({"deployment": canonical(self.deployment), "load": canonical(self.load), "repeat": self.repeat})

    @cached_property
    def launch_id(self) -> str:
        """The server start that this cell needs; cells with the same launch_id share one launch."""
        return fingerprint({"deployment": canonical(self.deployment), "repeat": self.repeat})
