"""Routing that was counted on this machine is found again: by the checkpoint's content, by its name, and never by chance."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from enginebench.cli import bench
from enginebench.errors import UserError
from enginebench.physics import captures
from enginebench.physics.files import read_weights
from enginebench.physics.placed import read_popularity
from enginebench.physics.popularity import uniform
from enginebench.physics.routing import Choices, Routing, routing_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    return tmp_path


def counted(experts: int = 16, *, hot: int = 3, name: str = "", content: str = "ab" * 32) -> Routing:
    """Top-1 routing over two kinds of input: text goes to the first `hot` experts alone, random ids to all in turn."""
    tokens = experts * hot
    chosen = np.concatenate([np.arange(tokens) % hot, np.arange(tokens) % experts]).astype(np.int16).reshape(-1, 1, 1)
    place = np.repeat(np.array([0, 1], np.int8), tokens)
    choices = Choices(chosen, np.arange(len(chosen), dtype=np.int32), np.ones(len(chosen), bool), place)
    names = (name,) if name else ()
    return routing_of("scout", "by hand", (0,), experts, choices, inputs=("text", "random"), names=names, content=content)


def test_a_checkpoint_is_found_by_its_content_whatever_it_is_called(home: Path) -> None:
    file = home / "weights.gguf"
    file.write_bytes(b"GGUF some weights")
    assert captures.find(str(file), 16) is None
    captures.keep(replace(counted(), content=captures.content(file)))
    (home / "copy.gguf").write_bytes(file.read_bytes())
    for each in (file, home / "copy.gguf"):
        found = captures.find(str(each), 16)
        assert found is not None
        assert found.counts.tolist() == counted().counts.tolist()
    file.write_bytes(b"GGUF other weights")
    assert captures.find(str(file), 16) is None


def test_a_model_of_the_catalogue_is_found_by_name_and_the_newest_count_wins() -> None:
    first = captures.keep(counted(name="llama4-scout", content="11" * 32))
    captures.keep(counted(name="llama4-scout", hot=2, content="22" * 32))
    os.utime(first, (1, 1))
    found = captures.find("Llama4-Scout", 16)
    assert found is not None
    assert captures.likely(found).counts[0].astype(bool).sum() == 2
    assert captures.find("llama4-maverick", 128) is None


def test_a_file_has_the_name_of_the_catalogue_if_its_own_begins_so_and_it_has_as_many_experts(home: Path) -> None:
    assert captures.known_names("/m/Llama-4-Scout-17B-16E-Instruct-UD-Q4_K_XL-00001-of-00002.gguf", 16) == ("llama4-scout",)
    assert captures.known_names("/m/Qwen3-30B-A3B-Q4_K_M.gguf", 128) == ("qwen3-30b-a3b",)
    assert captures.known_names("/m/Qwen3-30B-A3B-Q4_K_M.gguf", 64) == ()
    assert captures.known_names("/m/something.gguf", 16) == ()
    captures.keep(counted(name="llama4-scout"))
    other = home / "Llama-4-Scout-17B-16E-Instruct-Q8_0.gguf"
    other.write_bytes(b"GGUF")
    assert captures.find(str(other), 16) is not None


def test_random_ids_count_only_if_they_are_asked_for() -> None:
    assert captures.likely(counted()).counts.tolist() == [[16, 16, 16, *[0] * 13]]
    assert captures.likely(counted(), "random").counts.tolist() == [[3] * 16]


def test_captured_routing_is_the_popularity_of_experts() -> None:
    captures.keep(counted(name="llama4-scout"))
    weights = read_weights("llama4-scout", "fp8")
    found = read_popularity("captured", weights, "llama4-scout")
    assert found is not None
    assert (found.hit_rate(3), found.touched(64)) == pytest.approx((1.0, 3.0))
    even = read_popularity("captured:random", weights, "llama4-scout")
    assert even is not None
    assert even.touched(64) == pytest.approx(uniform(16, 1).touched(64))
    with pytest.raises(UserError, match="no routing of code was counted"):
        read_popularity("captured:code", weights, "llama4-scout")


def bench_(*words: str) -> Result:
    return CliRunner().invoke(bench, words)


def test_ceiling_and_offload_use_it_and_say_so() -> None:
    captures.keep(counted(name="llama4-scout"))
    asked = ["ceiling", "llama4-scout", "--hardware", "4xh100", "--precision", "fp8", "--batch", "64", "--json"]
    even, found = (json.loads(bench_(*asked, *more).stdout) for more in ((), ("--routing", "captured")))
    assert found["routing"] == "routing of scout on text"
    step = lambda told: told["contexts"][0]["decode"][0]  # noqa: E731
    assert (step(even)["touched"], step(found)["touched"]) == pytest.approx((15.74, 3.0), abs=0.01)
    assert step(found)["tokens_per_s"] > 2 * step(even)["tokens_per_s"]
    split = bench_("offload", "llama4-scout", "--hardware", "rtx4090+128gb", "--precision", "q4_k_m", "--routing", "captured")
    assert split.exit_code == 0, split.output
    assert "routing of scout on text" in split.output
    assert "cover 100.0% of the choices" in split.output


def test_without_a_count_the_command_says_how_to_make_one(home: Path) -> None:
    for reference, command in (
        ("llama4-scout", "bench routing CHECKPOINT --model llama4-scout"),
        ("random:qwen3moe", "bench routing random:"),
    ):
        done = bench_("ceiling", reference, "--hardware", "4xh100", "--routing", "captured")
        assert isinstance(done.exception, UserError)
        assert "was counted on this machine" in str(done.exception)
        assert command in str(done.exception)
