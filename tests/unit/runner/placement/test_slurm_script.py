"""Batch scripts, and what Slurm's commands print, without a Slurm."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.domain import ClosedLoop, Deployment
from enginebench.errors import UserError
from enginebench.runner.placement import slurm_commands as slurm
from enginebench.runner.placement.slurm_script import Shape, arrays, script, shape
from enginebench.runner.placement.unit_data import Setting, Unit

LOAD = ClosedLoop(concurrency=1, requests=4, input_tokens=16, output_tokens=8)


def unit(name: str = "a", **more: object) -> Unit:
    deployment = Deployment("vllm", "m", "bf16", "hf:m", node=more.pop("node", {}))
    return Unit(name, f"vllm {name}", deployment, (LOAD,), 0, Setting("s"), **more)


def options(*units: Unit, **settings: str) -> list[str]:
    text = script(shape(units[0]), units, Path("/shared/x"), settings)
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]


def test_a_unit_has_a_node_for_itself() -> None:
    found = options(unit(), unit("b"))
    assert {"--array=0-1", "--nodes=1", "--exclusive", "--mem=0", "--no-requeue", "--job-name=bench-x"} <= set(found)


def test_a_unit_that_shares_a_node_asks_for_cores() -> None:
    one = unit(exclusive=False, cores=4)
    assert "--cpus-per-task=4" in options(one)
    assert "--exclusive" not in options(one)
    assert '"$SLURMD_NODENAME" --cores 4\n' in script(shape(one), [one], Path("/s"), {})


def test_devices_and_labels_and_settings_become_options() -> None:
    one = unit(gpus=4, node={"gpu": "h100", "feature": "nvlink&ib", "name": "n7"})
    more = {"most": "3", "options": "--reservation=bench --comment='two words'"}
    found = options(one, partition="gpu", account="lab", qos="high", time="2:00:00", **more)
    wanted = (
        "--gres=gpu:h100:4",
        "--constraint=nvlink&ib",
        "--nodelist=n7",
        "--partition=gpu",
        "--account=lab",
        "--qos=high",
        "--time=2:00:00",
    )
    assert set(wanted) <= set(found)
    assert {"--array=0-0%3", "--reservation=bench", "'--comment=two words'"} <= set(found)


def test_a_unit_has_its_devices_on_one_node() -> None:
    assert {"--nodes=1", "--gres=gpu:8"} <= set(options(unit(gpus=8, needs_gpus=True)))


def test_a_partition_of_the_scenario_goes_before_that_of_the_command() -> None:
    assert "--partition=a" in options(unit(node={"partition": "a"}), partition="b")


def test_a_label_that_slurm_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match="node: featur: x means nothing to Slurm") as caught:
        shape(unit(node={"featur": "x"}))
    assert "did you mean 'feature'?" in str(caught.value)


def test_a_word_that_is_no_option_is_refused() -> None:
    with pytest.raises(UserError, match="'bench' is not an option"):
        options(unit(), options="--reservation bench")


def test_arrays_keep_the_order_and_are_cut_where_what_is_asked_for_changes() -> None:
    plan = [unit("a"), unit("b"), unit("c", gpus=1, needs_gpus=True), unit("d")]
    assert [[each.id for each in some] for _, some in arrays(plan, 100)] == [["a", "b"], ["c"], ["d"]]
    assert [len(some) for _, some in arrays([unit(str(i)) for i in range(2500)], 1000)] == [1000, 1000, 500]


def test_each_element_runs_its_own_unit(tmp_path: Path) -> None:
    """Run by bash with a Python that prints its arguments."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    units = [unit("one-0"), unit("two words-0"), replace(unit("three-0"), name="a\n#SBATCH --array=0-9\nb")]
    text = script(shape(units[0]), units, tmp_path, {"python": str(python), "setup": "export A=1"})
    assert text.count("\n#SBATCH --array") == 1
    for index, each in enumerate(units):
        done = subprocess.run(
            ["bash"], input=text, text=True, capture_output=True, env={"SLURM_ARRAY_TASK_ID": str(index), "SLURMD_NODENAME": "n1"}
        )
        assert done.stdout.strip() == f"-m enginebench.runner.placement.unit units/{each.id}.json --into runs/{each.id} --node n1", (
            done.stderr
        )


def test_shapes_compare() -> None:
    assert shape(unit()) == Shape(0, 0, exclusive=True, labels=())


@pytest.mark.parametrize(
    ("errors", "telling"),
    [
        (
            "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name specified\n",
            "sbatch: Batch job submission failed: Invalid partition name specified",
        ),
        ("slurm_load_jobs error: Unable to contact slurm controller", "sbatch: slurm_load_jobs error: Unable to contact slurm controller"),
        ("", "sbatch: it failed without a word"),
    ],
)  # fmt: skip
def test_the_telling_line_of_an_error(errors: str, telling: str) -> None:
    assert slurm.telling("sbatch", errors) == telling


def test_gres_of_nodes() -> None:
    found = slurm._listed("n1", "gpu", "64+", "avx512,ib", "gpu:h100:4(S:0-1),gpu:l40s:2,shard:8", "mixed-", "none")
    assert (found.gpus, found.features, found.cores, found.problem) == ({"h100": 4, "l40s": 2}, ("avx512", "ib"), 64, "")
    assert slurm._listed("n1", "gpu", "64", "(null)", "gpu:2", "idle*", "none").problem == "idle, but not responding"
    assert slurm._listed("n1", "gpu", "64", "(null)", "(null)", "drained", "fan").problem == "drained: fan"
