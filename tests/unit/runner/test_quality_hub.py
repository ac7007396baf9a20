"""WikiText-2 by its id on the hub: a real client fetches the file from a stand-in of the hub on loopback, and its rows become the text."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

FILE = "wikitext-2-raw-v1/test-00000-of-00001.parquet"
ROWS = ["", " = Robert Boulter = \n", "", " Robert Boulter is an English film , television and theatre actor . \n"]
CODE = """
import sys
from pathlib import Path
from enginebench.errors import UserError
from enginebench.runner.quality.windows import text_of
try:
    sys.stdout.write(text_of(sys.argv[1], Path()))
except UserError as error:
    sys.exit(str(error))
"""


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ROWS}), out)
    return out.getvalue()


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        data = parquet() if self.path.partition("?")[0] == f"/datasets/Salesforce/wikitext/resolve/main/{FILE}" else None
        self.send_response(200 if data is not None else 404)
        headers = {
            "ETag": f'"{hashlib.sha256(data or b"").hexdigest()}"',
            "X-Repo-Commit": "0" * 40,
            "Content-Length": str(len(data or b"")),
        }
        for header in (headers | ({"X-Error-Code": "EntryNotFound"} if data is None else {})).items():
            self.send_header(*header)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    yield {**os.environ, **hub}
    server.shutdown()
    server.server_close()


def test_its_rows_become_one_text_and_a_file_that_is_not_there_is_named(env: dict[str, str]) -> None:
    def read(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", CODE, name], env=env, capture_output=True, text=True)

    found = read(f"hf:Salesforce/wikitext/{FILE}")
    assert found.stdout == "\n\n".join(ROWS), found.stderr
    lost = read("hf:Salesforce/wikitext/test.parquet")
    assert "hf:Salesforce/wikitext/test.parquet cannot be fetched from the hub" in lost.stderr
