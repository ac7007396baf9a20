"""The way from a started process to a server that is ready and provably ours: ports, quick GETs, waiting, identity.

Knows nothing of any engine's endpoints (an adapter's `readiness` looks) nor of measured requests (the load generator has its
own client). GETs go straight to the address: proxies in the environment are ignored and redirects are not followed.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import psutil

from enginebench.adapter import Adapter, Get, Reply
from enginebench.errors import UserError
from enginebench.runtime.exit_status import LaunchFailed

POLL_GROWTH = 1.3
MAX_BODY = 64 * 2**20

Listener: TypeAlias = "tuple[int | None, str]"
"""Process (None: cannot be told) and the address its socket is bound to."""


def free_ports(host: str, count: int) -> tuple[int, ...]:
    """Different TCP ports on which nobody listens now. Somebody may take one before the engine does: `verify_listener` tells."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) for _ in range(count)]
        for probe in probes:  # all are held until each has its own
            probe.bind((host, 0))
        return tuple(int(probe.getsockname()[1]) for probe in probes)


def free_port(host: str = "127.0.0.1") -> int:
    """One of `free_ports`."""
    return free_ports(host, 1)[0]


def http_get(
    host: str, port: int, *, scheme: str = "http", prefix: str = "", headers: Mapping[str, str] | None = None, timeout_s: float = 5.0
) -> Get:
    """A `Get` that opens a connection per call and never raises for the network's sake: status 0 and the reason as the body.

    timeout_s bounds each step of it, and twice that all of it, whatever keeps coming.
    """
    connect = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection

    def get(path: str) -> Reply:
        connection = connect(host, port, timeout=timeout_s)
        bound = _Bound(2 * timeout_s)
        try:
            connection.connect()
            bound.watch(connection.sock)
            connection.request("GET", prefix + path, headers=dict(headers or {}))
            response = connection.getresponse()
            body = response.read(MAX_BODY)
            return bound.passed or Reply(response.status, body)
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a socket that was closed meanwhile
            return bound.passed or Reply(0, (str(error) or type(error).__name__).encode())
        finally:
            bound.cancel()
            connection.close()

    return get


class _Bound(threading.Timer):
    """Hangs up on a server that is not done in time; a socket's own timeout starts anew with each byte."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, self._hang_up)
        self.daemon = True
        self.passed: Reply | None = None
        """What there is to say when the time is over."""
        self._sock: socket.socket | None = None

    def watch(self, sock: socket.socket) -> None:
        self._sock = sock
        self.start()

    def _hang_up(self) -> None:
        self.passed = Reply(0, f"not complete after {self.interval:g} s".encode())
        assert self._sock is not None  # noqa: S101  # set before the start
        with contextlib.suppress(OSError):  # it is over already
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # a TLS socket's own forgets its state under the reader's feet


def http_get_url(url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 5.0) -> Get:
    """`http_get` for a base URL such as https://host/some/prefix (attach). Raises UserError when it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise UserError(f"{url!r} is not a base URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"{url!r} is not a base URL", advice="write for example http://127.0.0.1:8000, without /v1")
    return http_get(parts.hostname, port, scheme=parts.scheme, prefix=parts.path.rstrip("/"), headers=headers, timeout_s=timeout_s)


class _Remembering:
    """A `Get` that keeps the last answer, so that a failure can quote it."""

    def __init__(self, get: Get) -> None:
        self.get, self.last = get, ""

    def __call__(self, path: str) -> Reply:
        reply = self.get(path)
        text = reply.body[:200].decode(errors="replace").strip()
        answer = f"answered {reply.status}" if reply.status else "did not answer"
        self.last = f"; GET {path} last {answer}{f': {text}' if text else ''}"
        return reply


class HasPids(Protocol):
    """Whose sockets can be looked up: an `EngineProcess`, or a container on this machine."""

    def pids(self) -> list[int]: ...


class Watched(Protocol):
    """What is started and may end while it is waited for: an `EngineProcess`, or all of a deployment's as a `ProcessGroup`."""

    @property
    def alive(self) -> bool: ...

    @property
    def ending(self) -> str | None: ...

    def wait(self, timeout_s: float) -> bool: ...

    def log_tail(self) -> str: ...


def wait_ready(
    adapter: Adapter,
    get: Get,
    process: Watched | None,
    timeout_s: float,
    poll_s: tuple[float, float] = (0.01, 0.25),
    *,
    began: float | None = None,
) -> float:
    """Look until the adapter says ready; returns the seconds waited. process is None for a server that was already up.

    Pauses grow from the first to the second figure of poll_s, and the death of the process ends a pause at once. began: the
    monotonic instant that the time counts from; None: now. Raises LaunchFailed when the process dies, the adapter says broken,
    or the time is over.
    """
    began = time.monotonic() if began is None else began
    look = _Remembering(get)
    pause = poll_s[0]
    while True:
        readiness = adapter.readiness(look)
        waited = time.monotonic() - began
        if process is not None and not process.alive:  # whoever says ready then, it is not the engine
            raise LaunchFailed(f"{process.ending} before it was ready", process.log_tail())
        if readiness == "ready":
            return waited
        log_tail = process.log_tail() if process is not None else ""
        if readiness == "broken":
            raise LaunchFailed(f"the server is up but will not become ready{look.last}", log_tail)
        if waited >= timeout_s:
            raise LaunchFailed(f"not ready after {timeout_s:g} s{look.last}", log_tail)
        pause_now = min(pause, timeout_s - waited)
        if process is not None:
            process.wait(pause_now)
        else:
            time.sleep(pause_now)
        pause = min(pause * POLL_GROWTH, poll_s[1])


@dataclass(frozen=True)
class Proof:
    """Who answers on a port. kind: 'proven' ours, 'foreign' somebody else's, 'unknown' cannot be told here; text says why."""

    kind: Literal["proven", "foreign", "unknown"]
    text: str = "proven"


def verify_listener(port: int, process: HasPids, host: str = "127.0.0.1") -> Proof:
    """Whether connections to host:port reach the process's own tree.

    A socket bound to the very address takes precedence over one bound to all addresses, so a foreign 127.0.0.1:8000 shadows an
    engine on 0.0.0.0:8000. Linux sees every listener. Elsewhere other users' sockets are invisible without root, and one
    listener in our own tree counts as proof (not checked on macOS).
    """
    ours = _listeners_of(process.pids(), port)
    everyone = _all_listeners(port)
    found = _reached([*ours, *everyone], host)
    foreign = sorted({pid for pid, _ in found if pid not in {pid for pid, _ in ours}}, key=lambda pid: pid or 0)
    if foreign:
        who = " and ".join(map(_describe, foreign))
        return Proof("foreign", f"port {port} is answered by {who}, not by the engine that was started")
    if not found:
        return Proof("unknown", f"no listener on port {port} can be attributed to the engine that was started")
    return Proof("proven")


def _listeners_of(pids: list[int], port: int) -> list[Listener]:
    found: list[Listener] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            sockets = psutil.Process(pid).net_connections("tcp")
            found += [(pid, s.laddr.ip) for s in sockets if s.status == psutil.CONN_LISTEN and s.laddr and s.laddr.port == port]
    return found


def _all_listeners(port: int) -> list[Listener]:
    try:
        sockets = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return []
    return [(s.pid, s.laddr.ip) for s in sockets if s.status == psutil.CONN_LISTEN and s.laddr and s.laddr.port == port]


def _reached(listeners: list[Listener], host: str) -> list[Listener]:
    """The listeners that a connection to host can end at: those bound to it, else those bound to every address."""
    host = "127.0.0.1" if host == "localhost" else host
    exact = [item for item in listeners if item[1].removeprefix("::ffff:") == host]
    return exact or [item for item in listeners if item[1] in ("0.0.0.0", "::", "*")]  # noqa: S104  (recognised, not bound)


def _describe(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"
