"""Removes the containers of a launch if the harness ends without removing them, including kill -9. A program: `python -P guardian.py TAG`.

stdin: a pipe to which only the harness writes. End of file without the line `done` means that the harness has ended; then everything with
the label of the launch is removed. Until then this process sleeps, without the Docker SDK in memory. If this process is killed, too, the
next run or `bench clean` removes the containers by their labels.
"""

import contextlib
import signal
import sys
import time

PATIENCE_S = 60.0
"""Allows for a restart of the daemon."""
QUIET_S = 2.0
"""A container that the harness had just requested may appear after the harness has ended."""


def remove_all(tag: str) -> None:
    """Remove everything of the launch until nothing new has appeared for QUIET_S; give up after PATIENCE_S."""
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
    """Wait for the end of the harness; clean up if it did not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the harness counts
    if sys.stdin.readline() != "done\n":
        remove_all(sys.argv[1])


if __name__ == "__main__":
    main()
