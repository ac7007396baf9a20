"""One cell of a sweep, with the ids of its record and its server start."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from enginebench.domain.deployment import Deployment
from enginebench.domain.ids import short_hash, text_of
from enginebench.domain.load import Load

Status: TypeAlias = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Cell:
    """A deployment under a load, measured once. Its id names its record."""

    deployment: Deployment
    """The server that is measured."""
    load: Load
    """What is sent to it."""
    repeat: int = 0
    """From 0; each repeat starts the server anew."""

    @cached_property
    def id(self) -> str:
        # The same as of {"deployment": ..., "load": ..., "repeat": ...}, whose parts thousands of cells share.
        return short_hash(f'{{"deployment":{text_of(self.deployment)},"load":{text_of(self.load)},"repeat":{self.repeat}}}')

    @cached_property
    def launch_id(self) -> str:
        """Id of the server start; cells with the same launch_id share one server."""
        return short_hash(f'{{"deployment":{text_of(self.deployment)},"repeat":{self.repeat}}}')
