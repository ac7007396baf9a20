"""`bench view`: the pages of a folder of runs on this machine. Loopback only, for browsers that name this machine, and read-only."""

from __future__ import annotations

import http.server
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from enginebench.domain.formatting import printable
from enginebench.errors import UserError
from enginebench.report.page import SITE_POLICY
from enginebench.report.site.viewer import Redirect, Viewer

_HOST = "127.0.0.1"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
}
_IDLE_S = 60.0
"""A connection without a request is closed after so long."""


@dataclass
class Viewing:
    """A server for one folder. Use it in a `with` block; `serve` returns only by an exception."""

    folder: Path
    server: _Server
    viewer: Viewer

    @property
    def url(self) -> str:
        """The address to open: of a single run its own page, else the home page."""
        return f"http://{_HOST}:{self.server.server_port}/{self.viewer.first_page()}"

    def __enter__(self) -> Self:
        self.viewer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.server.server_close()
        self.viewer.close()

    def serve(self) -> None:
        """Answer requests until `stop` is called in another thread, or an exception (KeyboardInterrupt) ends it."""
        self.server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        self.server.shutdown()


def view(path: str | Path = "results", *, port: int = 0, index: str | None = None) -> Viewing:
    """The runs in a folder, or one run, as pages on this machine, which follow runs that are going on.

    path may be the URL of a store. port: 0 takes a free one. index: a shared index, as for `run_index`.
    UserError where there is no such folder, or the port is taken.
    """
    viewer = Viewer(path, index)
    try:
        server = _Server(port, viewer)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"port {port} of {_HOST} cannot be used: {why}", advice="name another with --port, or leave it out") from None
    return Viewing(Path(path), server, viewer)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, viewer: Viewer) -> None:
        super().__init__((_HOST, port), _Handler)
        self.viewer = viewer
        names = (_HOST, "localhost", "[::1]")
        self.hosts = {f"{name}:{self.server_port}" for name in names} | ({*names} if self.server_port == 80 else set())

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes its connection is no error of ours."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "enginebench", ""
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Answer with a page, or say why not."""
        if not self._named():
            return self._say(HTTPStatus.MISDIRECTED_REQUEST, f"this server answers to {_HOST} and localhost only")
        path = self.path.partition("?")[0]
        if not path.startswith("/"):
            return self._say(HTTPStatus.BAD_REQUEST, "a path begins with /")
        try:
            found = self.server.viewer.page(path[1:])
        except UserError as error:
            return self._say(HTTPStatus.INTERNAL_SERVER_ERROR, printable(str(error), "\n"))
        if found is None:
            return self._say(HTTPStatus.NOT_FOUND, "there is no such page; runs are listed at /")
        if isinstance(found, Redirect):
            return self._send(HTTPStatus.FOUND, "", "html", {"Location": found.to})
        suffix = path.rpartition(".")[2] if "." in path else "html"
        kept = "max-age=31536000, immutable" if path.startswith("/assets/") else "no-store"
        return self._send(HTTPStatus.OK, found, suffix, {"Cache-Control": kept})

    def do_HEAD(self) -> None:
        """The same without the content."""
        self.do_GET()

    def parse_request(self) -> bool:
        """Refuse every method that could write, before anything else."""
        if not super().parse_request():
            return False
        if self.command in ("GET", "HEAD"):
            return True
        self.close_connection = True  # its body is not read
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "this server only reads\n", "", {"Allow": "GET, HEAD"})
        return False

    def _named(self) -> bool:
        """Whether the browser asked for this machine by name: a page of another site, whose name leads here, did not."""
        named = self.headers.get_all("Host", [])
        return len(named) == 1 and named[0].strip().lower() in self.server.hosts

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._send(status, f"{text}\n", "", {"Cache-Control": "no-store"})

    def _send(self, status: HTTPStatus, text: str, suffix: str, more: dict[str, str]) -> None:
        data = text.encode(errors="replace")
        self.send_response(status)
        common = {
            "Content-Type": _TYPES.get(suffix, "text/plain; charset=utf-8"), "Content-Length": str(len(data)),
            "Content-Security-Policy": f"{SITE_POLICY}; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Referrer-Policy": "no-referrer",
        }  # fmt: skip
        for name, value in {**common, **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing is logged."""
