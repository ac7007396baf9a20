"""The command line's manners: exit codes, pipes, signals, and where each form of a report goes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

SCENARIO = """
name: demo
deployments:
  - {engine: fake, model: any, precision: none, options: {ttft_ms: 5, itl_ms: 2}TP}
loads:
  - {concurrency: [1, 2], input_tokens: 16, output_tokens: 4, requests: 4, warmup_requests: 1}
"""


class Shell:
    """Runs lines of shell in a folder of its own; `bench` in them is ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "ENGINEBENCH_HOME": str(folder / "home")}

    def __call__(self, line: str) -> subprocess.CompletedProcess[str]:
        ours = f'bench() {{ {shlex.join(bench_argv())} "$@"; }}; set -o pipefail; {line}'
        return subprocess.run(["bash", "-c", ours], cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=90)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """With one finished run under results/."""
    shell = Shell(tmp_path_factory.mktemp("cli"))
    (shell.folder / "s.yaml").write_text(SCENARIO.replace("TP", ""))
    (shell.folder / "skipped.yaml").write_text(SCENARIO.replace("TP", ", tp: 2"))
    done = shell("bench run s.yaml --no-html")
    assert done.returncode == 0, done.stderr
    return shell


def test_reports_with_and_without_a_file(shell: Shell) -> None:
    (run,) = (shell.folder / "results").iterdir()
    for line in (f"--json {run}", f"{run} --json", f"{run} --json -", "--json"):
        assert json.loads(shell(f"bench report {line}").stdout)["rows"]
    assert shell("bench report --html").returncode == 0
    assert (run / "report.html").is_file()
    assert shell("bench report --html -").stdout.lstrip().lower().startswith("<!doctype html>")
    assert shell("bench report --csv a.csv --md b.md").stdout == ""
    assert (shell.folder / "a.csv").is_file()
    assert (shell.folder / "b.md").is_file()


@pytest.mark.parametrize(
    "line",
    [
        "report --html nowhere/page.html", "report --json results/misspelt", "run s.yaml --results /proc/x",
        "plan s.yaml --adapter /nowhere.py",
        "plan s.yaml --only concurrency=3", "plan s.yaml --repeats 1000000000",
    ],
)  # fmt: skip
def test_bad_input_is_one_message(shell: Shell, line: str) -> None:
    done = shell(f"bench {line}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")


def test_a_reader_that_leaves_is_no_failed_threshold(shell: Shell) -> None:
    done = shell("bench report | true")
    assert done.returncode in (0, 141)
    assert done.stderr == ""


def test_the_same_key_twice_means_either(shell: Shell) -> None:
    assert "= 2 cells" in shell("bench plan s.yaml --only concurrency=1 --only concurrency=2").stdout


def test_a_plan_counts_what_will_run_and_says_how(shell: Shell) -> None:
    more = "  - {only: {model: any}, concurrency: 3, input_tokens: 16, output_tokens: 4, requests: 5}\n"
    scenario = SCENARIO.replace("TP", "").replace("any,", "[any, other],") + more
    (shell.folder / "some.yaml").write_text(scenario)
    shown = shell("bench plan some.yaml --repeats 2 --only engine=fake").stdout
    assert shown.startswith("Runs here: 10 cells.\n2 deployments, 3 loads, 2 repeats: 10 cells, 4 server starts, 42 measured requests\n")
    assert shown.endswith("next: bench run some.yaml --only engine=fake --repeats 2\n")


def test_a_plan_says_how_many_cells_a_search_may_take(shell: Shell) -> None:
    search = "  - {find: {over: rate, from: 1, to: 8}, duration_s: 2}\n  - {rate: 3, duration_s: 4}\nslo: {ttft_ms: 100}\n"
    (shell.folder / "search.yaml").write_text(SCENARIO.replace("TP", "") + search)
    shown = shell("bench plan search.yaml").stdout
    assert "1 deployment x 3 loads and 1 search x 1 repeat = up to 10 cells, 1 server start" in shown
    assert "8 measured requests and 4 s of load by duration" in shown
    assert "search: max_goodput over rate from 1 to 8, to 10 %: up to 7 cells each" in shown
    assert "slo: TTFT 100 ms for 99 % of requests" in shown
    assert "; requests 4; duration 4 s\n" in shown
    data = json.loads(shell("bench plan search.yaml --json").stdout)
    assert (data["cells"], data["probes"]) == (4, 6)
    assert "= 1 cell, 1 server start, 4 s of load by duration" in shell("bench plan search.yaml --only rate=3").stdout


def test_a_plan_of_searches_tells_them_apart_and_says_nothing_of_loads(shell: Shell) -> None:
    head = SCENARIO.replace("TP", "").partition("loads:")[0] + "slo: {ttft_ms: 100}\n"
    axes = "prompts: [random, text], requests: [20, 30], concurrency: [0, 8], input_tokens: [16, 32]"
    (shell.folder / "searches.yaml").write_text(head + f"loads:\n  - {{find: {{over: rate, to: 8}}, {axes}}}\n")
    shown = shell("bench plan searches.yaml").stdout
    lines = [line for line in shown.splitlines() if line.startswith("search: ")]
    assert len(lines) == len(set(lines)) == 16
    assert any(line.endswith("; 32 + 64 tokens; concurrency 8, requests 20, prompts text") for line in lines)
    assert "loads:" not in shown
    assert "measured request" not in shown


def test_a_stored_run_is_judged_by_other_limits(shell: Shell) -> None:
    def goodput(slo: str) -> float:
        rows = json.loads(shell(f"bench report --json --slo {slo}").stdout)["rows"]
        return float(rows[0]["figures"]["goodput"]["value"])

    assert "goodput" not in shell("bench report --json").stdout
    assert goodput("ttft_ms=0.001") == 0
    assert goodput("ttft_ms=60000,tpot_ms=60000,share=0.5") == goodput("mlperf/mixtral-8x7b") > 0
    assert "TTFT 2 s" not in shell("bench report --json").stdout, "what is stored stays as it is"
    for wrong in ("ttft_ms=fast", "ttft=1", "mlperf/deepseek", "''"):
        done = shell(f"bench report --slo {wrong}")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n  ") == 1, "it says what to write instead"


def test_a_stored_run_is_concluded_with_another_margin(shell: Shell) -> None:
    data = json.loads(shell("bench report --json --equal-within 12%").stdout)["conclusion"]
    assert data["equal_within"] == 0.12
    assert data["trust"]["level"] == "indicative only"
    assert data["choices"][0]["command"]
    assert json.loads(shell("bench report --json").stdout)["conclusion"]["equal_within"] is None
    for wrong in ("3", "0%", "much"):
        done = shell(f"bench report --equal-within {wrong}")
        assert (done.returncode, done.stdout) == (2, "")
        assert "write e.g. 3% or 0.03" in done.stderr


def test_nothing_measured_is_exit_code_3(shell: Shell) -> None:
    done = shell("bench run skipped.yaml --no-html --results elsewhere")
    assert done.returncode == 3
    assert "nothing was measured" in done.stderr


def test_a_run_under_nohup_outlives_its_terminal(shell: Shell) -> None:
    line = [sys.executable, "-m", "enginebench", "run", "s.yaml", "--no-html", "--results", "nohup"]
    process = subprocess.Popen(["nohup", *line], cwd=shell.folder, env=shell.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(shell.folder.glob("nohup/*/run.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
