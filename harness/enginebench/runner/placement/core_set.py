"""Cores that one unit has and no other on this machine: each is a file that its process keeps locked.

The kernel releases the locks however the process ends. Units of one node share the folder; what does not run as a unit is not held back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator

from enginebench.errors import UserError
from enginebench.runtime.lease import leases_folder


@contextlib.contextmanager
def core_set(count: int) -> Iterator[frozenset[int]]:
    """Hold so many cores while the block lasts, and run this process and all that it starts only there. 0: no restriction.

    UserError when fewer are free, and where a process cannot be bound to cores.
    """
    if not count:
        yield frozenset()
        return
    if sys.platform != "linux":
        raise UserError("only Linux can bind a unit to cores", advice="leave `cores` out of the scenario's `placement`")
    before = os.sched_getaffinity(0)
    folder = leases_folder() / "cores"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        mine: set[int] = set()
        for core in sorted(before):
            file = stack.enter_context((folder / str(core)).open("a"))
            if len(mine) < count and _locked(file.fileno()):
                mine.add(core)
        if len(mine) < count:
            raise UserError(f"{count} cores are asked for, and {len(mine)} of {len(before)} are free on this node")
        os.sched_setaffinity(0, mine)
        stack.callback(os.sched_setaffinity, 0, before)
        yield frozenset(mine)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
