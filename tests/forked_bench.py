"""`bench` commands as forks of a process that has imported enginebench, because importing takes longer than most commands of the tests.

`python forked_bench.py serve SOCKET` imports and waits. `python -I -S forked_bench.py SOCKET ARGUMENT...` is then what
`python -m enginebench ARGUMENT...` is: the fork takes over its working directory, environment, input and output, and it ends with the fork's
exit code. Signals do not reach the fork: a test that sends them starts a process of its own. Needs Linux or macOS.
"""

import json
import os
import socket
import sys


def call(path: str, arguments: list[str]) -> int:
    """What a test starts in place of `bench`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = json.dumps({"arguments": arguments, "folder": os.getcwd(), "env": dict(os.environ)}).encode()
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(request)
        return int(connection.recv(16) or b"255")


def serve(path: str) -> None:
    """Fork for every call, until this process is ended. Returns in a fork, after it has become a `bench`."""
    import gc
    import importlib
    import pkgutil
    import signal

    import enginebench
    import numpy.ma  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import uvloop  # noqa: F401

    for module in pkgutil.walk_packages(enginebench.__path__, "enginebench."):
        if not module.name.endswith(("__main__", "._receive")):
            importlib.import_module(module.name)
    assert "huggingface_hub" not in sys.modules, "it reads HF_HOME when it is imported"
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for a fork
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
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
    from enginebench.cli import main

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
