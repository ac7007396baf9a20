"""truthserver: built on demand, run on a core of its own, and read back: when each request had arrived and each token was sent.

Does not know: clients, or what their errors mean.
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
    """Compile truthserver. Exits with a sentence where there is no C compiler, or where it cannot run."""
    if not sys.platform.startswith("linux"):
        sys.exit("truthserver needs Linux (epoll); run this benchmark there")
    compiler = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        sys.exit("no C compiler found, and truthserver is written in C; install one (Debian: apt-get install gcc libc6-dev) or set CC")
    program = folder / "truthserver"
    subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE), "-lm"], check=True)
    return program


@dataclass
class Server:
    """A truthserver."""

    port: int
    busy_s: float = 0.0
    """Processor time in which it had something to do; known when it has ended."""


@contextmanager
def serving(program: Path, flags: Sequence[str], log: Path | None, core: int | None) -> Iterator[Server]:
    """A truthserver on its own core; ends it afterwards."""
    from enginebench.runtime import free_port

    port = free_port()
    running = Server(port)
    argv = [str(program), "--port", str(port), "--max-tokens-cap", "1000000", *flags]
    with subprocess.Popen(argv + (["--log-bin", str(log)] if log else []), stderr=subprocess.PIPE) as server:
        try:
            if core is not None:
                os.sched_setaffinity(server.pid, {core})
            if server.stderr is not None:
                server.stderr.readline()  # 'truthserver on PORT': it listens
            yield running
        finally:
            server.terminate()
            said = (server.communicate()[1] or b"").splitlines()
            with suppress(ValueError, IndexError):  # it ended in another way
                totals = json.loads(said[-1])
                running.busy_s = totals["cpu_s"] - totals["idle_s"]


def truth(log: Path) -> dict[str, tuple[int, Any]]:
    """End of the request id, from its last hyphen on -> (when the whole request had been read, when each token was sent), in ns of the
    monotonic clock."""
    return {name[name.rfind("-") :]: times for name, times in records(log)}


def records(log: Path) -> Iterator[tuple[str, tuple[int, Any]]]:
    """`truth` for every request, in the order in which they ended, those without an id included."""
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
    """Processor time that the hypervisor gave to others, over all cores, in clock ticks."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])
    return 0
