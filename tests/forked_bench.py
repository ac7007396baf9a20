"""`bench` commands as forks of a process that has imported enginebench, because importing takes longer than most commands of the tests.

`python forked_bench.py serve SOCKET` imports and waits. `python -I -S forked_bench.py SOCKET ARGUMENT...` is then what
`python -m enginebench ARGUMENT...` is: the fork takes over its working directory, environment, input and output, and it ends with the exit
code of the fork. It does not see other work on this machine, because tests run beside each other. Signals do not reach the fork, and a
library path that is set for it has no effect: tests that need any of this start a process of their own.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

LATER = (
    "encodings.idna", "encodings.unicode_escape", "jinja2", "numpy.ma", "numpy.random", "plotly.offline", "pyarrow.parquet", "rich.console",
    "rich.table", "rich._unicode_data", "uvloop",
)  # fmt: skip
"""What functions import when they are called."""


SHARED = "BENCH_FORKS"
"""The environment variable with the socket of the process that forks: one for all workers of pytest-xdist."""


def bench_argv(*arguments: str) -> list[str]:
    """What to start in place of `python -m enginebench ARGUMENT...`. The first call starts the process that forks, if there is none."""
    if SHARED not in os.environ:
        start()
    path, deadline = Path(os.environ[SHARED]), time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, "if it has ended, its traceback is above"
        time.sleep(0.01)
    return [sys.executable, "-I", "-S", __file__, str(path), *arguments]


def start() -> None:
    """Start the process that forks, which ends with this one. It is ready once its socket is there."""
    import atexit
    import shutil
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="bench-")
    server = subprocess.Popen([sys.executable, __file__, "serve", f"{folder}/socket"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.environ[SHARED] = f"{folder}/socket"

    @atexit.register
    def stop() -> None:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def call(path: str, arguments: list[str]) -> int:
    """What a test starts in place of `bench`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = json.dumps({"arguments": arguments, "folder": str(Path.cwd()), "env": dict(os.environ)}).encode()
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(request)
        return int(connection.recv(16) or b"255")


def import_all() -> None:
    """Every module of enginebench with what it imports, now or later."""
    import importlib
    import pkgutil

    import enginebench

    modules = [module.name for module in pkgutil.walk_packages(enginebench.__path__, "enginebench.")]
    for name in (*modules, *LATER):
        if not name.endswith(("__main__", "._receive")):
            importlib.import_module(name)
    from enginebench.physics.catalogue import models
    from enginebench.scenario.schema import ScenarioFile

    models()
    ScenarioFile.model_rebuild()


def serve(path: str) -> None:
    """Fork for every call, until this process is ended. Returns in a fork, after it has become a `bench`."""
    import gc
    import signal

    import_all()
    assert "huggingface_hub" not in sys.modules, "it reads HF_HOME when it is imported"
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for a fork
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen(16)
        Path(f"{path}.new").rename(path)  # it is there once it can be connected to
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, *_ = socket.recv_fds(connection, 4, 3)
    request = b""
    while len(request) < int.from_bytes(head, "big"):
        request += connection.recv(1 << 20)
    child = os.fork()
    if child:
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    for file, number in zip(files, range(3), strict=True):
        os.dup2(file, number)
        os.close(file)
    become(**json.loads(request))


def become(arguments: list[str], folder: str, env: dict[str, str]) -> None:
    """Run `bench` as this process."""
    import tempfile

    from enginebench.cli import main
    from enginebench.metrics import hardware
    from enginebench.physics import this_cpu

    hardware._foreign = lambda *_: None
    this_cpu._BYTES = 2**24  # a memory bandwidth, whatever it is: to touch a gigabyte takes a second
    tempfile.tempdir = None  # from the new environment
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["bench", *arguments]
    main()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(call(sys.argv[1], sys.argv[2:]))
