"""`bench run` on Ollama's adapter and worker, against a stand-in that speaks as much of Ollama's API as they use.

The stand-in refuses what would make the real one load its model again, evicts models beyond its limit, and keeps blobs by their digest.
It is no proof that the real one does the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from enginebench.checkpoints import prepare
from enginebench.records.run_folder import Run, open_run

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

STAND_IN = r"""
import hashlib, json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

assert sys.argv[1:] == ["serve"]
MODE = os.environ.get("HF_STAND_IN", "")
LIMIT = int(os.environ["OLLAMA_MAX_LOADED_MODELS"]) - (MODE == "forgetful")
RUNNER = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")
blobs, models, loaded = set(), {}, {}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass

    def answer(self, body, status=200):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        listed = [{"name": name if ":" in name else name + ":latest", "digest": digest} for name, digest in models.items()]
        ps = [{"name": name, "digest": models[name], "context_length": at[0]["num_ctx"], "details": {"quantization_level": "Q8_0"}}
              for name, at in loaded.items()]
        self.answer({"/api/version": {"version": "0.33.0"}, "/api/tags": {"models": listed}, "/api/ps": {"models": ps}}[self.path])

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/api/blobs/"):
            digest = "sha256:" + hashlib.sha256(raw).hexdigest()
            blobs.add(digest)
            return self.answer(None, 201) if self.path.endswith(digest) else self.answer({"error": "digest mismatch"}, 400)
        body = json.loads(raw)
        if self.path == "/api/create":
            if MODE == "picky": return self.answer({"error": "unknown type"}, 400)
            (digest,) = body["files"].values()
            assert digest in blobs
            models[body["model"]] = digest
            return self.answer({"status": "success"})
        if self.path == "/api/copy":
            models[body["destination"]] = models[body["source"]]
            return self.answer(None)
        self.generate(body)

    def generate(self, body):
        if MODE == "mortal": os._exit(7)
        wanted = ({key: body["options"].get(key) for key in RUNNER}, body.get("shift"))
        name = body["model"]
        prompt = body.get("prompt") or "".join(message["content"] for message in body.get("messages", ()))
        if not prompt:
            loaded[name] = wanted
            while len(loaded) > LIMIT: loaded.pop(next(iter(loaded)))
            return self.answer({"done": True, "done_reason": "load"})
        if loaded.get(name) != wanted: return self.answer({"error": f"reload of {name}"}, 500)
        said = {"response": "a "} if self.path == "/api/generate" else {"message": {"role": "assistant", "content": "a "}}
        count = body["options"]["num_predict"]
        last = {"done": True, "done_reason": "length", "prompt_eval_count": len(prompt.split()), "eval_count": count}
        lines = [*({**said, "done": False} for _ in range(count)), last]
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

host, port = os.environ["OLLAMA_HOST"].split(":")
assert os.environ["HOME"] == os.path.dirname(os.environ["OLLAMA_MODELS"])
ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"""
SCENARIO = """
name: demo
models: {tiny: {random_weights: {layers: 1, hidden: 64, heads: 2, kv_heads: 1, head_dim: 32, experts: 4, top_k: 2}}}
deployments: [{engine: ollama, model: tiny, precision: q8_0, options: OPTIONS}]
loads: [{concurrency: 2, input_tokens: 16, output_tokens: 8, requests: 4, api: [completions, chat]}]
"""
RANDOM = "random:qwen3moe?layers=1&hidden=64&heads=2&kv_heads=1&head_dim=32&experts=4&top_k=2&seed=5"


@dataclass
class Bench:
    """`bench run` in a folder with a home and an `ollama` of its own."""

    folder: Path

    def __call__(self, options: str, mode: str = "") -> tuple[int, Run, str]:
        (self.folder / "s.yaml").write_text(SCENARIO.replace("OPTIONS", options))
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "HF_STAND_IN": mode}  # a prefix that engines inherit
        argv = bench_argv("run", "s.yaml", "--no-html")
        done = subprocess.run(argv, cwd=self.folder, env=env, text=True, capture_output=True, timeout=120, check=False)
        (found,) = (self.folder / "results").iterdir()
        return done.returncode, open_run(found), done.stdout + done.stderr


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "bin").mkdir()
    ollama = tmp_path / "bin" / "ollama"
    ollama.write_text(f"#!{sys.executable}\n{STAND_IN}")
    ollama.chmod(0o755)
    return Bench(tmp_path)


def test_several_models_are_loaded_and_one_is_measured(bench: Bench) -> None:
    other = prepare(RANDOM, "q8_0", "gguf", bench.folder, lambda _text: None)
    code, run, said = bench(f"{{also: ['{other}'], threads: 2, gpu_layers: 0}}")
    assert code == 0, said
    for cell in run.cells():
        samples = run.samples(cell.id)
        assert cell.status == "ok", cell.reason
        assert set(samples.output_tokens.tolist()) == {8}
    (launch,) = run.launches().values()
    assert (launch.startup.identity, launch.version) == ("proven", "0.33.0")
    resolved = launch.configuration.resolved
    assert (resolved["model"], resolved["precision"], resolved["context"]) == ("tiny:q8_0", "q8_0", 24)
    assert [model["name"] for model in resolved["raw"]["/api/ps"]["models"]] == ["tiny:q8_0", "also-0"]
    assert any("prompt cache cannot be switched off" in note for note in launch.startup.notes)


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("mortal", "ollama exited with code 7"),
        ("picky", "POST /api/create answered 400: unknown type"),
        ("forgetful", "did not keep tiny:q8_0"),
    ],
)
def test_what_goes_wrong_on_the_way_is_told(bench: Bench, mode: str, why: str) -> None:
    code, run, said = bench("{}", mode)
    assert code == 3, said
    (cell, *_) = run.cells()
    assert cell.status == "failed"
    assert why in "\n".join(cell.log_tail)
    assert "before it was ready" in str(cell.reason)
