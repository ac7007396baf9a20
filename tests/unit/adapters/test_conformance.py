"""The promises of `enginebench.adapter`, checked for every adapter that is discovered."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
from enginebench.adapter import Adapter, Deployment, Install, Reply, Resolved, Site, prometheus_totals
from enginebench.domain import ClosedLoop
from enginebench.engines.registry import discover, environments, load_file
from enginebench.machine.folders import checkout

REGISTRY = discover()
ADAPTERS = [pytest.param(REGISTRY[name], id=name) for name in REGISTRY]
SITE = Site("127.0.0.1", 8123, Path("/nowhere"), "/models/checkpoint")


def deployments(adapter: Adapter) -> list[Deployment]:
    """One deployment per runtime, in a precision that the adapter has."""
    precision = min(adapter.precisions) if adapter.precisions else "unstated"
    url = "http://127.0.0.1:1"
    return [
        Deployment(adapter.name, "m", precision, "m", runtime=runtime, max_concurrency=2, url=url if runtime == "attach" else None)
        for runtime in adapter.runtimes
    ]


def install() -> Install:
    return Install("any", "1.0", python=Path(sys.executable), binary=Path("/bin/engine"))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_it_describes_itself(adapter: Adapter) -> None:
    assert adapter.title
    assert adapter.runtimes
    assert set(adapter.apis) <= {"completions", "chat", "responses", "messages"}
    assert adapter.checkpoint_format in ("gguf", "safetensors", "none")
    for environment, pins in environments(adapter).items():
        assert all("==" in pin for pin in pins.requirements), "requirements are exact pins"
        assert len(pins.requirements) == 1 or pins.constraints is not None, f"what {environment}'s requirements pull in is pinned, too"
    assert set(adapter.unwanted) <= set(environments(adapter))
    assert sys.modules[type(adapter).__module__].__doc__


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_its_options_are_frozen_and_have_defaults(adapter: Adapter) -> None:
    options = adapter.options()
    for field in dataclasses.fields(options):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(options, field.name, None)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_launching_is_pure_and_uses_the_address(adapter: Adapter) -> None:
    for deployment in deployments(adapter):
        adapter.check(deployment)
        adapter.check_loads(deployment, [ClosedLoop()])
        if deployment.runtime == "attach":
            continue
        launch = adapter.launch(deployment, install(), SITE)
        assert launch == adapter.launch(deployment, install(), SITE)
        assert launch.argv
        assert launch.served_name
        if deployment.runtime == "process":
            assert any("8123" in part for part in launch.argv)
            assert any("127.0.0.1" in part for part in launch.argv)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_requests_are_json_with_explicit_sampling(adapter: Adapter) -> None:
    for deployment in deployments(adapter):
        for api in adapter.apis:
            load = ClosedLoop(output_tokens=7, api="chat" if api == "chat" else "completions")
            extra = adapter.request_fields(deployment, load)
            body = adapter.dialect(deployment, load).body(model="m", prompt="a", output_tokens=7, temperature=0.0, seed=None, extra=extra)
            sent = json.loads(json.dumps(body))
            assert sent["stream"] is True
            sampling = sent.get("options") or sent.get("sampling_params") or sent  # Ollama's and SGLang's own routes nest it
            assert sampling["temperature"] == 0.0
            assert 7 in (sampling.get("max_tokens"), sampling.get("num_predict"), sampling.get("max_new_tokens"))


@pytest.mark.parametrize("adapter", [adapter for adapter in ADAPTERS if adapter.id != "fake"])
def test_nothing_about_sampling_is_left_to_an_engines_default(adapter: Adapter) -> None:
    for deployment in deployments(adapter):
        for api in adapter.apis:
            load = ClosedLoop(output_tokens=7, temperature=0.7, api="chat" if api == "chat" else "completions")
            extra = adapter.request_fields(deployment, load)
            body = adapter.dialect(deployment, load).body(model="m", prompt="a", output_tokens=7, temperature=0.7, seed=3, extra=extra)
            sent = json.loads(json.dumps(body))
            nested = json.loads(sent["generation_config"]) if "generation_config" in sent else sent.get("options") or sent  # Ollama
            assert (nested["temperature"], nested["top_p"]) == (0.7, 1.0)
            assert nested.get("top_k", 0) <= 0, "every token may be drawn"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_readiness_knows_refused_and_ready(adapter: Adapter) -> None:
    assert adapter.readiness(lambda _path: Reply(0)) == "loading"
    assert adapter.readiness(lambda _path: Reply(200, b"{}")) == "ready"
    assert adapter.readiness(lambda _path: Reply(500)) == "broken"


def test_the_smallest_adapter_of_the_documentation_works(tmp_path: Path) -> None:
    page = (checkout() or Path()) / "docs" / "adding-an-engine.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    adapter = load_file(tmp_path / "mine.py")
    launch = adapter.launch(Deployment("mine", "m", "bf16", "m", options={"page_size": 64}), install(), SITE)
    assert launch.argv[1:] == (
        *("-m", "mine.server", "--model", "/models/checkpoint", "--host", "127.0.0.1", "--port", "8123"),
        *("--stream-interval", "1", "--page-size", "64"),
    )
    resolved = adapter.resolved(lambda _path: Reply(200, b'{"version": "1.0", "page_size": 64}'))
    assert (resolved.version, resolved.options) == ("1.0", {"page_size": 64})


def test_prometheus_totals_sum_over_labels_and_leave_out_invalid_lines() -> None:
    text = '# HELP a x\na 1\nb{rank="0",x="} y"} 2 1700000000\nb{rank="1"} 3e0\nc nan-ish\n{\n\nd\na NaN\nb{rank="2"} +Inf\ne NaN\n'
    assert prometheus_totals(text) == {"a": 1.0, "b": 5.0}


def test_a_reply_can_be_stored() -> None:
    reply = Reply(200, b'{"a": NaN, "b": [1e999, 1.5, -Infinity], "c": "x\\ud800", "d": true, "\\udfff": null}').json()
    assert reply == {"a": None, "b": [None, 1.5, None], "c": "x?", "d": True, "?": None}
    assert json.loads(json.dumps(reply, allow_nan=False, ensure_ascii=False).encode()) == reply
    assert Reply(200, b"[" * 50 + b"]" * 50).json() is not None
    for deep in (100, 20_000):
        assert Reply(200, b"[" * deep + b"]" * deep).json() is None


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"data": 3}', b'[{"n_ctx": "x"}]'], ids=str)
def test_a_reply_may_be_anything(adapter: Adapter, body: bytes) -> None:
    assert isinstance(adapter.resolved(lambda _path: Reply(200, body)), Resolved)
    assert all(isinstance(value, int | float) for value in adapter.counters(lambda _path: Reply(200, body)).values())
    assert isinstance(adapter.resolved(lambda _path: Reply(0)), Resolved)
    assert adapter.counters(lambda _path: Reply(404)) == {}
