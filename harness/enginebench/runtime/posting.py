"""JSON requests to a server outside of measurements, one after another on one connection. Times nothing."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any, Self

from enginebench.domain import JSON


class NotAnswered(Exception):  # noqa: N818  # the server's choice
    """The server refused a request, or gave no reply to it; the text says what it said."""


class Poster:
    """A connection that is kept open; not for several threads."""

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None, headers: Mapping[str, str] | None = None, timeout_s: float = 600.0
    ) -> None:
        secure = tls is not None
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls)
            if secure
            else http.client.HTTPConnection(host, port, timeout=timeout_s)
        )
        self._headers = {"Content-Type": "application/json", **(headers or {})}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __call__(self, path: str, body: Mapping[str, JSON]) -> JSON:
        """The reply to a POST; NaN and infinity are read as such. Raises NotAnswered."""
        try:
            status, content = self._post(path, json.dumps(body).encode())
        except (OSError, http.client.HTTPException) as error:
            raise NotAnswered(f"no reply to POST {path}: {str(error) or type(error).__name__}") from None
        if status != 200:
            raise NotAnswered(f"POST {path} returned {status}: {_message(content)}")
        try:
            reply: Any = json.loads(content)
        except ValueError:
            raise NotAnswered(f"the reply to POST {path} is not JSON: {content[:100]!r}") from None
        return reply  # type: ignore[no-any-return]

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        try:
            self._connection.request("POST", path, body, self._headers)
            response = self._connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):  # an idle connection was closed meanwhile
            self._connection.close()
            self._connection.request("POST", path, body, self._headers)
            response = self._connection.getresponse()
        return response.status, response.read()


def _message(content: bytes) -> str:
    """What an error says, in one line."""
    try:
        found = json.loads(content)
    except ValueError:
        found = content.decode(errors="replace")
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return " ".join(str(found).split())[:300]
