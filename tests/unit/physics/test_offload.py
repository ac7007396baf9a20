"""The offload advisor: the curve by hand, its flags, what it must obey, and the command."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics import Role, fit, read_machine, read_weights
from enginebench.physics.memory import Reserve
from enginebench.physics.offload_curve import OffloadCurve, splits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

MIXTRAL = read_weights("mixtral-8x7b", "f16")
NOTHING = Reserve(runtime=0.0, chunk=0)


def curve_of(model: str, precision: str, hardware: str, *, host: float = 50e9, context: int = 1, concurrency: int = 1) -> OffloadCurve:
    machine = read_machine(hardware, host_bandwidth=host)
    weights = read_weights(model, precision)
    return splits(fit(weights, machine, Parallelism(), context=context, concurrency=concurrency, reserve=NOTHING))


def test_mixtral_by_hand() -> None:
    # 32 layers of 8 experts of 176,160,768 weights: 2.819 GB a layer in 16 bits, 90.2 GB of 93.4. A 4090 has 23.99 GiB less what it keeps.
    curve = curve_of("mixtral-8x7b", "f16", "rtx4090+128gb")
    assert [each.layers for each in curve.splits] == list(range(33))
    layer = 8 * 176_160_768 * 2
    assert curve.splits[7].fit.budget.host == pytest.approx(7 * layer)
    assert curve.splits[0].device_bytes - curve.splits[1].device_bytes == pytest.approx(layer)
    room = read_machine("rtx4090").device.usable
    first = next(n for n in range(33) if MIXTRAL.bytes - n * layer < room * 0.999)
    best = curve.best
    assert best is not None
    assert best.layers == first
    # one token reads 2 of 8 experts of those layers from 50 GB/s, and the rest from 1,008 GB/s
    token = 2 * 176_160_768 * 2
    rest = MIXTRAL.bytes - MIXTRAL.of(Role.EXPERT, Role.EMBEDDING) + (32 - first) * token
    assert 1 / best.step.tokens_per_s == pytest.approx(first * token / 50e9 + rest / 1008e9, rel=1e-3)


def test_the_knee_is_where_the_host_takes_longer() -> None:
    curve = curve_of("mixtral-8x7b", "f16", "rtx4090+128gb")
    bent = curve.knee
    assert bent is not None
    for each in curve.splits:
        host = each.step.memory["host"]
        assert (host > each.step.time_s - host) == (each.layers >= bent.layers)
    assert curve_of("mixtral-8x7b", "f16", "rtx4090+128gb", host=1e15).knee is None


def test_flags() -> None:
    mixture = curve_of("mixtral-8x7b", "q4_k_m", "rtx4090+128gb", context=4096, concurrency=2).splits[5]
    assert mixture.flags == "-ngl 999 --n-cpu-moe 5 -c 8192 -np 2"
    assert mixture.options == {"n_cpu_moe": 5}
    # 80 layers and the head: 10 on the host leave 71
    dense = curve_of("llama-3.1-70b", "q4_k_m", "rtx4090+128gb", context=4096).splits[10]
    assert dense.flags == "-ngl 71 -c 4096 -np 1"
    assert dense.options == {"gpu_layers": 71}
    assert curve_of("llama-3.1-70b", "q4_k_m", "rtx4090+128gb").splits[80].options == {"gpu_layers": 1}


@hypothesis_settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["mixtral-8x7b", "gpt-oss-20b", "qwen3-30b-a3b", "qwen3-8b"]),
    st.floats(1e10, 5e11),
    st.integers(1, 16),
    st.sampled_from([512, 8192]),
)
def test_more_on_the_host_is_roomier_and_slower(model: str, host: float, concurrency: int, context: int) -> None:
    curve = curve_of(model, "f16", "rtx4090+128gb", host=host, concurrency=concurrency, context=context)
    for less, more in itertools.pairwise(curve.splits):
        assert more.fit.budget.left > less.fit.budget.left
        assert more.step.tokens_per_s <= less.step.tokens_per_s * (1 + 1e-9)
    best = curve.best
    assert best is None or not any(each.fit.fits for each in curve.splits[: best.layers])


# -- the command -----------------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    return CliRunner().invoke(bench, ["offload", *arguments], standalone_mode=False)


def test_command(tmp_path: Path) -> None:
    asked = ("gpt-oss-120b", "--hardware", "1xrtx4090+128gb", "--context", "8k", "--kv", "q8_0")
    done = run(*asked, "--html", str(tmp_path / "knee.html"))
    assert done.return_value == 0
    data = json.loads(run(*asked, "--json").stdout)
    best = data["curve"][data["plan"]]
    assert best["fits"]
    assert not data["curve"][data["plan"] - 1]["fits"]
    assert best["options"] == {"n_cpu_moe": data["plan"], "kv_type": "q8_0"}
    assert f"llama-server -m FILE.gguf {best['flags']}" in done.stdout
    assert f"N = {data['plan']}: at most {best['tokens_per_s']:.1f} tok/s" in done.stdout
    page = (tmp_path / "knee.html").read_text()
    assert best["flags"] in page
    assert "does not fit" in page


def test_what_is_usual_stands_beside_the_bound() -> None:
    asked = ("gpt-oss-120b", "--hardware", "rtx4090+128gb")
    data, text = json.loads(run(*asked, "--json").stdout), run(*asked).stdout
    rates = [(each["expected"]["tokens_per_s"], each["tokens_per_s"]) for each in data["curve"]]
    assert all(0 < usual <= most for usual, most in rates)
    best = data["curve"][data["plan"]]["expected"]
    assert best["low"] < best["tokens_per_s"] < best["high"]
    assert "offloaded" in best["basis"]
    assert f"Expected: about {best['tokens_per_s']:.1f} tok/s ({best['low']:.1f} to {best['high']:.1f}; {best['basis']})." in text


def test_without_a_measurement_nothing_is_usual() -> None:
    asked = ("gpt-oss-120b", "--hardware", "name=box,memory=24gb,bandwidth=900gb/s+128gb")
    data, text = json.loads(run(*asked, "--json").stdout), run(*asked).stdout
    assert {each["expected"] for each in data["curve"]} == {None}
    assert "What is usual is unknown, as no measurement of llama.cpp in such a case is known." in text


def test_command_where_nothing_helps() -> None:
    done = run("deepseek-r1", "--hardware", "rtx4090+64gb", "--precision", "q4_k_m")
    assert done.return_value == 1
    assert "It does not fit:" in done.stdout
    assert "but the host has 64.0 GB" in done.stdout


def test_routing_that_is_uneven_reads_less_of_the_host() -> None:
    asked = ("mixtral-8x7b", "--hardware", "rtx4090+128gb", "--precision", "q4_k_m", "--concurrency", "8", "--json")
    even, skewed = (json.loads(run(*asked, *more).stdout) for more in ((), ("--routing", "zipf:1.2")))
    assert skewed["curve"][-1]["tokens_per_s"] > even["curve"][-1]["tokens_per_s"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--hardware", "rtx4090"), "names no host memory"),
        (("--hardware", "2xrtx4090+128gb"), "over several GPUs"),
        (("--hardware", "rtx4090+128gb", "--precision", "awq"), "llama.cpp has no awq"),
    ],
)
def test_command_refuses(more: tuple[str, ...], why: str) -> None:
    with pytest.raises(UserError, match=why):
        raise run("mixtral-8x7b", *more).exception
