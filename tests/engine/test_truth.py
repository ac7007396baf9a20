"""The load generator against the instrument that knows the truth: nothing lost, nothing early, and the benchmark's own arithmetic."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

CLIENT = Path(__file__).parents[2] / "benchmarks" / "client.py"


@pytest.fixture(scope="module")
def client() -> ModuleType:
    """benchmarks/client.py as a module; what lies beside it can be imported, as when it is run."""
    sys.path.insert(0, str(CLIENT.parent))
    spec = importlib.util.spec_from_file_location("bench_client", CLIENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_client"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(client: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """truthserver, compiled."""
    missing = "Linux" if not sys.platform.startswith("linux") else "" if shutil.which("cc") or shutil.which("gcc") else "a C compiler"
    if missing and not os.environ.get("CI"):
        pytest.skip(f"truthserver needs {missing}")
    program: Path = client.build(tmp_path_factory.mktemp("truth"))
    return program


@pytest.mark.parametrize("name", ["enginebench", "enginebench, loop stamps", "bare"])
@pytest.mark.parametrize("flags", [("--ttft-ms", "30", "--itl-ms", "5"), ("--burst", "--burst-batch", "8")])
def test_every_token_is_seen_and_none_before_it_was_sent(
    client: ModuleType, server: Path, tmp_path: Path, name: str, flags: tuple[str, ...]
) -> None:
    case = client.Case("tiny", flags, 4, 3, 20)
    log = tmp_path / "log"
    with client.serving(server, flags, log, None) as running:
        told = client.CLIENTS[name](case, running.port)
    sent = client.truth(log)
    assert len(told["samples"]) == 12
    assert len(sent) == 12 + 4 * (name != "bare"), "and the warm-up"
    for index, sent_ns, events in told["samples"]:
        arrived, tokens = sent[index]
        assert len(tokens) == 20
        assert sent_ns <= arrived
        if name != "bare":
            assert all(event >= token for event, token in zip(events, tokens, strict=True))
    figures = client.judged(told, sent)
    assert figures["ttft_p50"] > 0
    assert told["events"] == 240


def test_a_machine_without_a_compiler_gets_a_sentence(client: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(SystemExit, match="no C compiler"):
        client.build(tmp_path)
