"""From a started process to a server that is ready and verified: free ports, simple GETs, waiting for readiness, identity of the listener.

GETs ignore proxies in the environment and do not follow redirects.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import psutil

from enginebench.adapter import Adapter, Get, Reply
from enginebench.errors import UserError
from enginebench.runtime.exit_status import LaunchFailed

POLL_GROWTH = 1.3
MAX_BODY = 64 * 2**20

Listener: TypeAlias = "tuple[int | None, str]"
"""Process (None: unknown) and the address its socket is bound to."""


def free_ports(host: str, count: int) -> tuple[int, ...]:
    """Different TCP ports that are free now. Another process may take one before the engine does; `verify_listener` detects that."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) for _ in range(count)]
        for probe in probes:  # keep all open until each has a port
            probe.bind((host, 0))
        return tuple(int(probe.getsockname()[1]) for probe in probes)


def free_port(host: str = "127.0.0.1") -> int:
    """One of `free_ports`."""
    return free_ports(host, 1)[0]


def http_get(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    prefix: str = "",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 5.0,
) -> Get:
    """A `Get` with one connection per call. It does not raise network errors: they give status 0 or -1 and the reason as the body.

    timeout_s limits each step (connect, send, each read); the whole call is limited to twice that. query: put after every path.
    """

    def get(path: str) -> Reply:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        if tls is not None:
            connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls)
        deadline = _Deadline(2 * timeout_s)
        try:
            connection.connect()
            deadline.watch(connection.sock)
            connection.request("GET", prefix + path + (f"?{query}" if query else ""), headers=dict(headers or {}))
            response = connection.getresponse()
            body = response.read(MAX_BODY)
            return deadline.passed or Reply(response.status, body)
        except (ssl.SSLError, http.client.BadStatusLine) as error:
            reason = _hopeless(error)
            return deadline.passed or (Reply(-1, reason.encode()) if reason else Reply(0, str(error).encode()))
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: the socket was closed meanwhile
            return deadline.passed or Reply(0, (str(error) or type(error).__name__).encode())
        finally:
            deadline.cancel()
            connection.close()

    return get


def _hopeless(error: Exception) -> str | None:
    """Why no connection to this server can succeed; None if a later one may."""
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = "mismatch" not in error.verify_message and "expired" not in error.verify_message
        advice = "; name it, or its authority's, in a PEM file: `ca_file`" if unknown else ""
        return f"the server's certificate is not trusted ({error.verify_message}){advice}"
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text:
        return "the server does not speak TLS; write http:// in `url`"
    if "NO_APPLICATION_PROTOCOL" in text or "\\x00" in ascii(text):  # a frame in place of a status line
        return "the server speaks only HTTP/2, and enginebench measures with HTTP/1.1; put a proxy before it, or switch HTTP/1.1 on"
    return None


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """A context that trusts the certificates in this file; None: those of the system. Raises OSError."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Deadline(threading.Timer):
    """Shuts a socket down after some time. (The socket's own timeout restarts with each byte.)"""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, self._shut_down)
        self.daemon = True
        self.passed: Reply | None = None
        """The reply if the deadline has passed."""
        self._sock: socket.socket | None = None

    def watch(self, sock: socket.socket) -> None:
        self._sock = sock
        self.start()

    def _shut_down(self) -> None:
        self.passed = Reply(0, f"not complete after {self.interval:g} s".encode())
        assert self._sock is not None  # noqa: S101  # set before the start
        with contextlib.suppress(OSError):  # already closed
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # not SSLSocket.shutdown, which drops state that the reader needs


def http_get_url(url: str, *, headers: Mapping[str, str] | None = None, ca_file: str | None = None, timeout_s: float = 5.0) -> Get:
    """`http_get` for a base URL such as https://host/some/prefix (attach). Raises UserError if the URL is invalid."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise UserError(f"invalid base URL {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise UserError(f"invalid base URL {url!r}", advice="write for example http://127.0.0.1:8000, without /v1")
    tls, prefix = tls_context(ca_file) if parts.scheme == "https" else None, parts.path.rstrip("/")
    return http_get(parts.hostname, port, tls=tls, prefix=prefix, query=parts.query, headers=headers, timeout_s=timeout_s)


class Watched(Protocol):
    """An `EngineProcess`, an `EngineContainer` or a `ProcessGroup`."""

    @property
    def alive(self) -> bool: ...

    @property
    def ending(self) -> str | None: ...

    def wait(self, timeout_s: float) -> bool: ...

    def log_tail(self, lines: int = 60) -> str: ...


def wait_ready(
    adapter: Adapter, get: Get, process: Watched | None, timeout_s: float, poll_s: tuple[float, float] = (0.01, 0.25), *,
    began: float | None = None,
) -> float:  # fmt: skip
    """Poll until the adapter reports 'ready'. Returns the seconds waited.
    process: None for a server that was already running (attach). poll_s: first and longest pause; a pause ends early if the process ends.
    began: start of the waiting time on the monotonic clock; None: now. Raises LaunchFailed if the process ends, the adapter reports
    'broken', or timeout_s elapses."""
    began = time.monotonic() if began is None else began
    pause, last = poll_s[0], ""

    def recording(path: str) -> Reply:
        nonlocal last
        reply = get(path)
        text = reply.body[:200].decode(errors="replace").strip()
        last = f"; the last GET {path} {f'returned {reply.status}' if reply.status > 0 else 'failed'}{f': {text}' if text else ''}"
        return reply

    while True:
        readiness = adapter.readiness(recording)
        waited = time.monotonic() - began
        if process is not None and not process.alive:  # then a 'ready' came from another server
            raise LaunchFailed(f"{process.ending} before it was ready", process.log_tail())
        if readiness == "ready":
            return waited
        log_tail = process.log_tail() if process is not None else ""
        if readiness == "broken":
            raise LaunchFailed(f"the server is up but will not become ready{last}", log_tail)
        if waited >= timeout_s:
            raise LaunchFailed(f"not ready after {timeout_s:g} s{last}", log_tail)
        pause_now = min(pause, timeout_s - waited)
        if process is not None:
            process.wait(pause_now)
        else:
            time.sleep(pause_now)
        pause = min(pause * POLL_GROWTH, poll_s[1])


@dataclass(frozen=True)
class Proof:
    """Whether the started engine listens on a port."""

    kind: Literal["proven", "foreign", "unknown"]
    """'foreign': another process listens; 'unknown': cannot be determined on this machine."""
    text: str = "proven"
    """The reason."""


def verify_listener(port: int, pids: list[int], host: str = "127.0.0.1") -> Proof:
    """Whether connections to host:port reach these processes.
    A socket bound to the exact address takes precedence over one bound to all addresses, so another server on 127.0.0.1:8000 shadows an
    engine on 0.0.0.0:8000. Linux shows every listener. Other systems hide sockets of other users without root; there, one listener in the
    process tree counts as proof (not tested on macOS)."""
    own = [listener for pid in pids for listener in _listeners(port, pid)]
    found = _reached([*own, *_listeners(port)], host)
    foreign = sorted({pid for pid, _ in found if pid not in {pid for pid, _ in own}}, key=lambda pid: pid or 0)
    if foreign:
        listeners = " and ".join(map(_describe, foreign))
        return Proof("foreign", f"{listeners} listens on port {port} instead of the started engine")
    if not found:
        return Proof("unknown", f"no listener on port {port} can be attributed to the started engine")
    return Proof("proven")


def _listeners(port: int, pid: int | None = None) -> list[Listener]:
    """Those of a process; None: all that this machine shows."""
    try:
        sockets: Any = psutil.net_connections("tcp") if pid is None else psutil.Process(pid).net_connections("tcp")
    except (psutil.Error, OSError):
        return []
    return [(pid or s.pid, s.laddr.ip) for s in sockets if s.status == psutil.CONN_LISTEN and s.laddr and s.laddr.port == port]


def _reached(listeners: list[Listener], host: str) -> list[Listener]:
    """The listeners that a connection to host can reach: those bound to it, else those bound to all addresses."""
    host = "127.0.0.1" if host == "localhost" else host
    exact = [item for item in listeners if item[1].removeprefix("::ffff:") == host]
    return exact or [item for item in listeners if item[1] in ("0.0.0.0", "::", "*")]  # noqa: S104  (compared, not bound)


def _describe(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"
