"""Starts `ollama serve`, imports models from GGUF files over its API, loads them, and then waits until it ends.

    python ollama_worker.py --host 127.0.0.1 --port 11434 /usr/bin/ollama plan.json

plan.json: {"models": [{"name", "file"}, ...], "load": fields of the loading request, "ready": a second name that the first model gets when
all are loaded}. Any failure on the way ends Ollama and this process with a message. Unverified: run against a stand-in only.
"""

import argparse
import hashlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

POLL_S = 0.05
DEATH_PATIENCE_S = 1.0


class Failed(Exception):  # noqa: N818  # it names the event
    """Ollama ended, or returned an error."""


class Api:
    """Ollama's HTTP API while its process runs."""

    def __init__(self, host: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self._host, self._port, self._process = host, port, process

    def wait(self) -> None:
        while True:
            try:
                self.call("GET", "/api/version")
            except ConnectionRefusedError:
                time.sleep(POLL_S)
            else:
                return

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request. A Path as body sends that file's content, anything else is sent as JSON. Returns the reply's JSON, or None."""
        if self._process.poll() is not None:
            raise Failed(f"ollama exited with code {self._process.returncode}")
        connection = http.client.HTTPConnection(self._host, self._port)
        try:
            if isinstance(body, Path):
                with body.open("rb") as file:
                    connection.request(method, path, body=file, headers={"Content-Length": str(body.stat().st_size)})
            else:
                connection.request(method, path, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        reply = json.loads(text) if text else None
        error = reply.get("error") if isinstance(reply, dict) else None
        if response.status >= 400 or error:
            raise Failed(f"{method} {path} answered {response.status}: {error or text[:200].decode(errors='replace')}")
        return reply


def set_up(api: Api, plan: Mapping[str, Any]) -> None:
    """Import and load every model of the plan, check that all stay loaded, then give the first its second name."""
    names = [model["name"] for model in plan["models"]]
    for model in plan["models"]:
        import_model(api, model["name"], Path(model["file"]))
    for name in names:
        log(f"loading {name}")
        api.call("POST", "/api/generate", {"model": name, **plan["load"]})
    loaded = {model["name"].removesuffix(":latest") for model in api.call("GET", "/api/ps")["models"]}
    if missing := [name for name in names if name not in loaded]:
        raise Failed(f"ollama did not keep {', '.join(missing)} loaded: there may not be memory for all models")
    api.call("POST", "/api/copy", {"source": names[0], "destination": plan["ready"]})
    log("ready")


def import_model(api: Api, name: str, file: Path) -> None:
    """Copy a GGUF file into Ollama's store as a model of that name."""
    log(f"importing {name} from {file}")
    with file.open("rb") as content:
        digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    api.call("POST", f"/api/blobs/{digest}", file)
    api.call("POST", "/api/create", {"model": name, "files": {file.name: digest}, "stream": False})


def _ending(process: subprocess.Popen[bytes]) -> str:
    """How Ollama ended, if that is why a connection broke; its process ends a moment after its sockets close."""
    try:
        return f"ollama exited with code {process.wait(DEATH_PATIENCE_S)}: "
    except subprocess.TimeoutExpired:
        return ""


def log(text: str) -> None:
    print(f"ollama_worker: {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="ollama_worker", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11434)
    parser.add_argument("ollama")
    parser.add_argument("plan", type=Path)
    args = parser.parse_args(argv)
    process = subprocess.Popen([args.ollama, "serve"])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, _frame: process.send_signal(which))
    try:
        api = Api(args.host, args.port, process)
        api.wait()
        set_up(api, json.loads(args.plan.read_text()))
    except (Failed, OSError, http.client.HTTPException, ValueError, KeyError) as error:
        log(str(error) if isinstance(error, Failed) else f"{_ending(process)}{type(error).__name__}: {error}")
        process.terminate()
        process.wait()
        return 1
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
