"""Ends and removes what dead runs left behind: processes, containers, networks. Leaves those of live runs alone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from enginebench.runtime import LaunchFailed, sweep
from enginebench.runtime.container.client import connect
from enginebench.runtime.container.leftovers import clean as clean_containers


@dataclass(frozen=True)
class Cleanup:
    """What `clean` did."""

    actions: tuple[str, ...]
    """One sentence for everything that was ended, removed or left alone."""
    containers_problem: str | None = None
    """Why containers could not be looked at; None when they were."""


def clean() -> Cleanup:
    """End processes and remove containers and networks of runs whose harness is dead. Never raises for a missing Docker daemon."""
    actions = sweep()
    try:
        with contextlib.closing(connect()) as client:
            return Cleanup((*actions, *clean_containers(client)))
    except LaunchFailed as failure:
        return Cleanup(tuple(actions), failure.reason)
