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
    figures = client.with_errors(told, sent)
    assert figures["ttft_p50"] > 0
    assert told["events"] == 240


def test_a_machine_without_a_compiler_gets_a_sentence(client: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(SystemExit, match="no C compiler"):
        client.build(tmp_path)


def test_what_is_asked_is_held_against_what_was_measured(client: ModuleType) -> None:
    """A round, its table's line and the verdicts, all from the same figures."""
    once = {
        "ttft_mean": -0.2, "ttft_p50": 0.0, "ttft_p99": 0.31, "itl_p99": 0.6, "late_p50": 0.0, "late_p99": 0.01, "held": 1015.0,
        "rate": 99e3, "events": 1e6, "window_s": 2.0, "wall_s": 4.0, "cpu_s": 9.0, "peak_bytes": 101e6, "served": 0.5, "stolen": 0.0,
    }  # fmt: skip
    case = next(case for case in client.CASES if case.name == "1,024 streams")
    mid = client.typical([once, {**once, "cpu_s": 8.0}, {**once, "cpu_s": 12.0}])
    assert (mid["recorded"], mid["decoded"], mid["cpu_us"]) == (500e3, 250e3, 9.0)
    line = dict(zip(client.COLUMNS, client.row(case, "enginebench", mid), strict=True))
    assert (line["events/s"], line["CPU s per M events"], line["peak MB"], line["server busy"]) == ("99k", "9.0", "101", "50%")
    said = {(case, words): (asked, found, met) for case, words, asked, found, met in client.verdicts({case.name: mid}, {})}
    of = "1,024 streams"
    assert said[of, "TTFT error mean, ms"] == ("at most 0.10", "-0.20", "**not met**"), "too early is wrong, too"
    assert said[of, "TTFT error p99, ms"][2] == "**not met**"
    assert said[of, "ITL error p99, ms"][2] == said[of, "streams held"][2] == "met"
    assert said[of, "CPU seconds per million events"] == ("at most 9.0", "9.0", "met")
    assert said[of, "MB left of 60 + 40 bytes per event"] == ("at least 0", "-1", "**not met**")
    assert {case for case, _ in said} == {of}


@pytest.mark.clock
def test_a_server_that_spins_says_how_much_of_its_core_it_used(client: ModuleType, server: Path, tmp_path: Path) -> None:
    case = client.Case("tiny", sys.modules["cases"].PACED, 4, 2, 20)
    with client.serving(server, case.server, tmp_path / "log", None) as running:
        told = client.CLIENTS["enginebench"](case, running.port)
    assert 0 < running.busy_s < told["wall_s"] / 2, "it had nothing to do nearly all the time, and did not sleep"
    assert len(client.truth(tmp_path / "log")) == 8 + 4
