"""What `fit`, `offload` and `ceiling` print: the answer first, times in a unit that fits them, and no note that nobody asked for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.domain.formatting import brief


def run(*arguments: str) -> str:
    return CliRunner().invoke(bench, arguments, catch_exceptions=False, standalone_mode=False).output


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("fit", "mixtral-8x7b", "--hardware", "2xh100"), "It fits."),
        (("fit", "mixtral-8x7b", "--hardware", "h100"), "It does not fit: weights 93.4 GB + "),
        (("fit", "llama4-scout", "--hardware", "rtx4090+128gb", "--precision", "q4_k_m"), "It does not fit: "),
        (("offload", "gpt-oss-120b", "--hardware", "rtx4090+128gb"), "It fits with N = 23: at most "),
        (("offload", "gpt-oss-20b", "--hardware", "rtx4090+128gb"), "It fits the GPU: at most "),
        (("offload", "deepseek-r1", "--hardware", "rtx4090+16gb", "--precision", "q4_k_m"), "It does not fit: "),
    ],
)
def test_the_answer_comes_first(arguments: tuple[str, ...], answer: str) -> None:
    assert run(*arguments).startswith(answer)


def test_a_mixture_whose_experts_are_not_all_of_its_size_leaves_whole_layers_on_the_host() -> None:
    arguments = ("llama4-scout", "--hardware", "rtx-3080+512gb", "--precision", "q4_k_m", "--context", "32k")
    text = run("offload", *arguments)
    assert text.startswith("It fits with N = 43: ")
    assert "-ngl 6 " in text
    assert "N: the first N layers are on the host" in text
    assert "--cpu-layers 43" in run("fit", *arguments)


def test_a_step_has_a_unit_that_fits_it() -> None:
    slow = "name=slow,memory=96gb,bandwidth={}"
    for bandwidth, unit in (("1800gb/s", "ms"), ("2gb/s", "s"), ("50mb/s", "min")):
        text = run("ceiling", "mixtral-8x7b", "--hardware", slow.format(bandwidth), "--batch", "1")
        assert f"and what takes it, in {unit}," in text
        assert "arithmetic not stated, so no limit" in text
    assert [brief(seconds) for seconds in (0.0254, 9.81, 673.6677)] == ["25.4 ms", "9.81 s", "11.2 min"]


def test_nothing_is_noted_that_was_not_asked() -> None:
    for arguments in (("fit", "mixtral-8x7b"), ("ceiling", "llama4-scout"), ("fit", "deepseek-r1")):
        assert "note:" not in run(*arguments, "--hardware", "8xh200")
    noted = run("ceiling", "gpt-oss-20b", "--hardware", "name=h100,memory=80gb,bandwidth=5tb/s")
    assert "note: h100 is stated with 5,000 GB/s; the catalogue has 3,350 GB/s" in noted
    assert "note: the m3-ultra is sold with 96, 256 or 512 GB" in run("fit", "gpt-oss-20b", "--hardware", "m3-ultra-192gb")


def test_active_weights_say_whether_the_input_table_counts() -> None:
    assert "3.61 active and 0.58 in the input table" in run("fit", "gpt-oss-20b", "--hardware", "l4"), "3.6 are published"
    assert "12.9 active," in run("fit", "mixtral-8x7b", "--hardware", "h100")


def test_only_the_smallest_of_many_machines_are_shown() -> None:
    text = run("fit", "gpt-oss-20b", "--hardware", "l4")
    assert text.count("\n  1x ") + text.count("\n  2x ") + text.count("\n  4x ") <= 12
    assert "more: --json" in text
