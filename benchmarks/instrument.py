"""Builds truthserver, runs it on its own core, and reads its log: when each request had arrived and when each token was sent.

Does not know: clients.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent / "truthserver" / "truthserver.c"


def build(folder: Path) -> Path:
    """Compile truthserver. Exits with a message if there is no C compiler, or if it cannot run here."""
    if not sys.platform.startswith("linux"):
        sys.exit("truthserver needs Linux (epoll); run this benchmark there")
    compiler = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        sys.exit("no C compiler found for truthserver; install one (Debian: apt-get install gcc libc6-dev) or set CC")
    program = folder / "truthserver"
    subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE), "-lm"], check=True)
    return program


@dataclass
class Server:
    """A truthserver process."""

    port: int
    busy_s: float = 0.0
    """CPU time with work to do; known after its end."""


@contextmanager
def serving(program: Path, flags: Sequence[str], log: Path | None, core: int | None) -> Iterator[Server]:
    """Run a truthserver on its own core."""
    from enginebench.runtime import free_port

    port = free_port()
    running = Server(port)
    argv = [str(program), "--port", str(port), "--max-tokens-cap", "1000000", *flags]
    with subprocess.Popen(argv + (["--log-bin", str(log)] if log else []), stderr=subprocess.PIPE) as server:
        try:
            if core is not None:
                os.sched_setaffinity(server.pid, {core})
            if server.stderr is not None:
                server.stderr.readline()  # 'truthserver on PORT', once it listens
            yield running
        finally:
            server.terminate()
            output = (server.communicate()[1] or b"").splitlines()
            with suppress(ValueError, IndexError):  # it did not end normally
                totals = json.loads(output[-1])
                running.busy_s = totals["cpu_s"] - totals["idle_s"]


def truth(log: Path) -> dict[str, tuple[int, Any]]:
    """End of the request id, from its last hyphen on -> (time at which the request had been read, times at which tokens were sent), in
    ns of the monotonic clock."""
    return {name[name.rfind("-") :]: times for name, times in records(log)}


def records(log: Path) -> Iterator[tuple[str, tuple[int, Any]]]:
    """`truth` for every request, including those without an id, in the order in which they ended."""
    import numpy as np

    words = np.frombuffer(log.read_bytes(), np.uint64)
    at = 0
    while at < len(words):
        arrived, count, id_bytes = int(words[at + 5]), int(words[at + 7]), int(words[at + 8])
        name = words[at + 9 : at + 9 + id_bytes // 8].tobytes().rstrip(b"\0").decode()
        first = at + 9 + id_bytes // 8
        yield name, (arrived, words[first : first + count].astype(np.int64))
        at = first + count


def stolen_ticks() -> int:
    """CPU time that the hypervisor gave to other machines, over all cores, in clock ticks."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])
    return 0
