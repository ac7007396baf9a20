"""'The top 2-3 of 16 experts take 60-80 %': judged by what was counted on this machine, and what would follow from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from enginebench.audit.examine import audit_claims
from enginebench.audit.finding import Finding
from enginebench.cli import bench
from enginebench.physics import captures
from enginebench.physics.routing import Choices, Routing, routing_of
from enginebench.physics.routing_files import save


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    return tmp_path


def counted(*shares: float) -> Routing:
    """1,000 choices of top-1 routing over 16 experts in each layer: `shares` say what the three hottest take in each."""
    layers = []
    for share in shares:
        hot = round(1000 * share)
        layers.append(np.concatenate([np.arange(hot) % 3, 3 + np.arange(1000 - hot) % 13]))
    chosen = np.stack(layers, axis=1)[:, :, None].astype(np.int16)
    choices = Choices(chosen, np.arange(1000, dtype=np.int32), np.ones(1000, bool), np.zeros(1000, np.int8))
    return routing_of(
        "scout.gguf", "by hand", range(len(shares)), 16, choices, inputs=("text",), names=("llama4-scout",), content="ab" * 32
    )


def judged(folder: Path, *, routing: str = "even", **entry: Any) -> Finding:
    hot = {"source": "A", "says": "as written", "model": "llama4-scout", "experts": [2, 3], "share": [0.6, 0.8]} | entry
    file = folder / "claims.yaml"
    file.write_text(yaml.safe_dump({"sources": {"A": {"title": "t"}}, "hot_experts": [hot]}))
    return audit_claims(file, routing=routing).findings[0]


def test_without_a_count_it_is_undecided_with_the_command_and_what_would_follow(home: Path) -> None:
    found = judged(home)
    assert found.verdict == "not enough stated"
    assert "3.20x to 6.40x" in found.reasons[0]
    assert found.reasons[-1].endswith("no routing of this model was counted here; count it: bench routing CHECKPOINT --model llama4-scout")
    # 2 take 40 % each, 14 take 1.43 %: 2 + 14 (1 - 0.9857^64) = 10.4. 3 take 20 %, 13 take 3.08 %: 3 + 13 (1 - 0.9692^64) = 14.2
    assert "at batch 64 a step would then read 10.4 to 14.2 of 16 experts in each layer, even routing 15.7" in " ".join(found.reasons)
    # 96.6 billion weights in experts, 193.3 GB in bf16, 12.08 GB for one of 16
    assert "(125.9 to 172.0 GB of experts in bf16 instead of 190.2)" in " ".join(found.reasons)
    assert "2 to 3 experts of each layer on the GPU would serve 60% to 80% of the choices" in " ".join(found.reasons)


@pytest.mark.parametrize(
    ("shares", "verdict", "words"),
    [
        ((0.7, 0.74), "plausible", "counted on scout.gguf: 2 to 3 experts take 48% to 72% of the choices on text, 47% to 74% by layer"),
        ((0.66, 0.3), "plausible", "as claimed in some layers only"),
        ((0.3, 0.35), "inconsistent", "2 to 3 experts take 22% to 32% of the choices on text"),
        ((0.99, 0.99), "plausible", "66% to 99%"),
    ],
)
def test_what_was_counted_decides(home: Path, shares: tuple[float, ...], verdict: str, words: str) -> None:
    captures.keep(counted(*shares))
    found = judged(home)
    assert (found.verdict, words in found.reasons[0]) == (verdict, True), found.reasons


def test_an_inconsistent_share_says_by_how_much(home: Path) -> None:
    captures.keep(counted(0.3, 0.3))
    assert judged(home).off_by == pytest.approx(2.0)


def test_a_named_file_decides_and_an_assumed_skew_does_not(home: Path) -> None:
    save(replace(counted(0.7), content=""), home / "counts.npz")
    assert judged(home, routing=str(home / "counts.npz")).verdict == "plausible"
    assert judged(home, routing="zipf:1.5").verdict == "not enough stated"
    assert judged(home, routing="captured").verdict == "not enough stated"


@pytest.mark.parametrize(
    ("entry", "verdict", "words"),
    [
        ({"experts": 3, "of": 16, "share": 0.7}, "plausible", "3 experts take 70% of the choices on text"),
        ({"experts": 3, "of": 32, "share": 0.7}, "inconsistent", "a layer has 16 experts, not 32"),
        ({"experts": 20, "share": 0.7}, "inconsistent", "a layer has 16 experts"),
        ({"model": "mixtral-8x7b", "experts": 1, "share": 0.9}, "impossible as stated", "1 experts can take 50% of the choices at most"),
        ({"model": "qwen3-8b"}, "not enough stated", "is a dense model"),
    ],
)
def test_single_numbers_and_what_no_routing_can_do(home: Path, entry: dict[str, Any], verdict: str, words: str) -> None:
    captures.keep(counted(0.7))
    found = judged(home, **entry)
    assert (found.verdict, words in found.reasons[0]) == (verdict, True), found.reasons


def test_the_command_says_what_was_counted(home: Path) -> None:
    captures.keep(counted(0.7))
    judged(home)
    done = CliRunner().invoke(bench, ["audit", str(home / "claims.yaml"), "--routing", "captured", "--why"])
    assert done.exit_code == 0, done.output
    assert "47% to 70% of the choices on text" in " ".join(done.output.split())
