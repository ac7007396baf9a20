"""A way to a server on which one direction is slow: what the server sends takes longer, what it is sent does not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def slow_way(address: str, delay_s: float, here: str = "127.0.0.1") -> Iterator[str]:
    """Where to connect instead of `address`; `here` is an address of this machine."""
    host, _, port = address.rpartition(":")
    listener = socket.create_server((here, 0))
    opened, threads = [listener], []

    def pump(source: socket.socket, sink: socket.socket, wait_s: float) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                time.sleep(wait_s)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                opened.extend((near, far))
                for ends in ((near, far, 0.0), (far, near, delay_s)):
                    start(pump, *ends)

    def start(work: Callable[..., None], *arguments: object) -> None:
        threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        threads[-1].start()

    start(accept)
    try:
        yield f"{here}:{listener.getsockname()[1]}"
    finally:
        for end in opened:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for end in opened:
            end.close()
