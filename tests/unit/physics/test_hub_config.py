"""`hf:ORG/NAME` is read from the hub cache or fetched, without weights, and says in a sentence why not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from enginebench.errors import UserError
from enginebench.physics import hub_config, read_weights

CONFIG = {"model_type": "mixtral", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_local_experts": 4,
          "num_experts_per_tok": 2, "intermediate_size": 32, "vocab_size": 100, "max_position_embeddings": 512}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    hub_config._texts.cache_clear()
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub with one repository; yields the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # a name of http.server
            asked.append(f"{self.path} {self.headers.get('Authorization', '')}".strip())
            gated, found = "gated" in self.path, self.path.endswith("config.json") and "hf_quant" not in self.path
            body = json.dumps({**CONFIG, "torch_dtype": "float16"}).encode() if "html" not in self.path else b"<html>"
            self.send_response(403 if gated else 200 if found and "nothing" not in self.path else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_hub_cache_comes_first(cache: Path) -> None:
    folder = cache / "models--org--small"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "config.json").write_text(json.dumps(CONFIG))
    (folder / "snapshots" / "abc" / "hf_quant_config.json").write_text(
        json.dumps({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}})
    )
    found = read_weights("hf:org/small")
    assert (found.model.name, found.precision.name) == ("small", "fp8")
    assert read_weights("hf:org/small", "int8").precision.name == "int8"


def test_only_its_configs_are_fetched(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    found = read_weights("hf:org/small@v2")
    assert (found.model.name, found.precision.name, len(found.model.layers)) == ("small", "f16", 2)
    read_weights("hf:org/small@v2", "int8")
    assert hub == [f"/org/small/resolve/v2/{name} Bearer hf_x" for name in ("config.json", "hf_quant_config.json")]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf:org/gated", "org/gated is gated, or it does not exist"),
        ("hf:org/nothing", "has no config.json on the hub"),
        ("hf:org/html", "invalid JSON"),
        ("hf:org/small/model-q4_k_m.gguf", "names no repository"),
        ("hf:small", "names no repository"),
    ],
)
def test_why_not(hub: list[str], reference: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_weights(reference)


def test_without_a_network_it_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"cannot fetch http://127.0.0.1:9/org/small/resolve/main/config.json: .*refused"):
        read_weights("hf:org/small")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        read_weights("hf:org/small")


def test_a_hub_id_that_is_not_in_the_catalogue_says_how_to_read_it() -> None:
    with pytest.raises(UserError) as caught:
        read_weights("org/small")
    assert caught.value.advice == "write hf:org/small to read its config.json on the hub"
