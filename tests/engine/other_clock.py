"""Starts a program whose monotonic clock is another than this machine's, as that of another host would be (a time namespace of Linux).

    python other_clock.py NANOSECONDS COMMAND...

Exit code 77 where this is not allowed. The program ends with this process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

CLONE_NEWTIME = 0x80
PR_SET_PDEATHSIG = 1
NOT_ALLOWED = 77


def main(offset_ns: int, command: list[str]) -> int:
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWTIME) != 0:
        return NOT_ALLOWED
    seconds, nanoseconds = divmod(offset_ns, 1_000_000_000)
    Path("/proc/self/timens_offsets").write_text(f"monotonic {seconds} {nanoseconds}\nboottime {seconds} {nanoseconds}\n")
    child = os.fork()  # only children are in it
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execvp(command[0], command)  # noqa: S606
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
