"""Removes a launch's containers when the harness that started them is gone, kill -9 included. A program: `python -m ... TAG`.

stdin: a pipe whose other end only the harness holds. Its end without the line `done` means that the harness is gone; then everything that
carries the launch's label is removed. Until then this process sleeps, and has not even imported the Docker SDK. Knows nothing of why a
container is there. Killed itself, it leaves the rest to the labels: the next run, or `bench clean`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time

PATIENCE_S = 60.0
"""For a daemon that is being restarted."""
QUIET_S = 2.0
"""A container that the harness was just asking for may appear after it is gone."""


def remove_all(tag: str) -> None:
    """Remove everything of the launch until nothing has been there for QUIET_S; give up after PATIENCE_S."""
    from enginebench.runtime.container.client import connect
    from enginebench.runtime.container.leftovers import find, remove
    from enginebench.runtime.exit_status import LaunchFailed

    give_up = time.monotonic() + PATIENCE_S
    quiet_since = time.monotonic()
    while time.monotonic() < give_up and time.monotonic() - quiet_since < QUIET_S:
        try:
            with contextlib.closing(connect()) as client:
                left = find(client, tag)
                for item in left:
                    remove(client, item)
        except LaunchFailed:
            left = None
        if left != []:
            quiet_since = time.monotonic()
        time.sleep(0.2)


def main() -> None:
    """Wait for the end of the harness, and clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the harness's end is what this waits for, however it comes
    if sys.stdin.readline() != "done\n":
        remove_all(sys.argv[1])


if __name__ == "__main__":
    main()
