"""Command lines of the fake engine, and what the attach-only adapter reads from a running server. Starts nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from enginebench.adapter import JSON, WORKERS, Deployment, Install, Reply, Site, Unsupported
from enginebench.domain import ClosedLoop
from enginebench.engines.registry import load_file
from enginebench.machine.folders import resource_dir

FAKE = load_file(resource_dir("adapters") / "fake.py")
OPENAI = load_file(resource_dir("adapters") / "openai.py")
BUILTIN = Install("builtin", "0", python=Path("/env/bin/python"))


def served(replies: Mapping[str, JSON]) -> Mapping[str, Reply]:
    return {path: Reply(200, json.dumps(body).encode()) for path, body in replies.items()}


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, ""),
        ({"ttft_ms": 20.0, "burst": False}, ""),  # as by default
        ({"protocol": "ollama", "reasoning_tokens": 4, "tool_call": True}, "--protocol ollama --reasoning-tokens 4 --tool-call"),
        ({"protocol": "sglang", "incremental": True}, "--protocol sglang --incremental"),
        ({"tick_ms": 10, "ttft_ms": 50}, "--ttft-ms 50.0 --tick-ms 10.0"),
        ({"itl_ms": 0, "batch_events": 32, "close": True}, "--itl-ms 0.0 --batch-events 32 --close"),
    ],
)
def test_fake_option_becomes_flags(options: dict[str, JSON], flags: str) -> None:
    deployment = Deployment("fake", "m", "none", "m", max_context=64, options=options)
    prefix = "/env/bin/python WORKERS/fake_worker.py --host 127.0.0.1 --port 8123 --model m --context 64"
    launch = FAKE.launch(deployment, BUILTIN, Site("127.0.0.1", 8123, Path("/site"), "m"))
    assert shlex.join(launch.argv).replace(str(WORKERS), "WORKERS") == f"{prefix} {flags}".rstrip()


def test_the_fake_engine_takes_ids_where_its_protocol_does() -> None:
    takes = {
        protocol: FAKE.traits(Deployment("fake", "m", "none", "m", options={"protocol": protocol})).takes_ids
        for protocol in ("openai", "ollama", "sglang", "tgi")
    }
    assert takes == {"openai": True, "ollama": False, "sglang": True, "tgi": False}
    with pytest.raises(Unsupported, match="no chat route"):
        FAKE.check_loads(Deployment("fake", "m", "none", "m", options={"protocol": "tgi"}), [ClosedLoop(api="chat")])


RUNNING = {
    "vllm": {"/v1/models": {"data": [{"id": "org/m"}]}, "/version": {"version": "0.33.0"}},
    "sglang": {
        "/v1/models": {"data": [{"id": "org/m"}]},
        "/server_info": {
            "version": "0.5.23", "context_length": 4096, "max_running_requests": 64, "disable_radix_cache": True, "kv_cache_dtype": "auto",
            "api_key": "hush", "admin_api_key": "hush", "ssl_keyfile_password": "hush",
        },
    },
    "ollama": {
        "/v1/models": {"data": [{"id": "org/m"}, {"id": "other"}]},
        "/api/version": {"version": "0.33.0"},
        "/api/ps": {"models": [{"name": "org/m", "context_length": 8192}]},
    },
    "tgi": {"/info": {"version": "3.3.6", "model_id": "org/m", "max_total_tokens": 2048}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("vllm", ("0.33.0", "org/m", None, None, None)),
        ("sglang", ("0.5.23", "org/m", 4096, 64, False)),
        ("ollama", ("0.33.0", "org/m", 8192, None, None)),
        ("tgi", ("3.3.6", "org/m", 2048, None, None)),
    ],
)
def test_resolved_of_a_running_server(server: str, expected: tuple[object, ...]) -> None:
    state: Any = RUNNING[server]
    replies = served(state)
    resolved = OPENAI.resolved(lambda path: replies.get(path, Reply(404)))
    assert (resolved.version, resolved.model, resolved.context, resolved.slots, resolved.prefix_cache) == expected
    assert resolved.raw.keys() == state.keys()
    assert "hush" not in str(resolved.raw)


@pytest.mark.parametrize(
    ("found", "ready"),
    [
        ({"/v1/models": 200}, "ready"),
        ({"/v1/models": 503, "/health": 200}, "loading"),
        ({"/health": 200}, "ready"),
        ({"/api/version": 200}, "ready"),
        ({"/v1/models": 0}, "loading"),
        ({"/v1/models": 401}, "ready"),  # a generation proves the rest
        ({}, "ready"),
        ({"/v1/models": 501}, "ready"),
        ({"/v1/models": 426}, "broken"),  # HTTP/2 only
        ({"/v1/models": 500}, "broken"),
    ],
)
def test_readiness_of_a_running_server(found: Mapping[str, int], ready: str) -> None:
    assert OPENAI.readiness(lambda path: Reply(found.get(path, 404))) == ready
