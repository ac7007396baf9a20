"""`bench` as a user runs it - a process of its own - against the fake engine, through everything that can go wrong."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from enginebench.adapter import WORKERS

from .bench import ENGINE, Bench

QUICK = "options: {ttft_ms: 5, itl_ms: 2}"


def test_a_run_ends_with_the_answer_the_page_and_the_next_commands(bench: Bench) -> None:
    done = bench("run", bench.scenario(QUICK, "options: {ttft_ms: 15, itl_ms: 2}", repeats=2))
    assert done.returncode == 0, done.stderr
    assert "[8/8]" in done.stderr
    for words in (
        "8/8 ok",
        "ANSWER  fake ttft_ms=",
        "TRUST   ",
        "tok/s",
        "TTFT p50 ms",
        f"report  {bench.run_folder().relative_to(bench.folder)}",
    ):
        assert words in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith("more  bench report --table | --latency | --why") or lines[-1].startswith("more    bench report")
    assert "\x1b" not in done.stdout + done.stderr
    folder = bench.run_folder()
    assert (folder / "report.html").stat().st_size > 1_000_000
    assert len(list((folder / "launches").glob("*.json"))) == 4
    assert len(list((folder / "samples").glob("*.parquet"))) == 8
    assert all(cell["identity"] == "proven" for cell in bench.cells())
    assert "memory_bandwidth" not in json.loads((folder / "run.json").read_text())["machine"], "no ceiling can be computed for this model"
    assert not bench.engines()


@pytest.mark.clock
def test_the_measured_times_are_those_of_the_engine(bench: Bench) -> None:
    done = bench("run", bench.scenario("options: {ttft_ms: 40, itl_ms: 10}"), "--json", "--no-html")
    rows = json.loads(done.stdout)["rows"]
    for row in rows:
        # Never early; how late a busy machine may be is not what is tested here.
        assert 0.0395 < row["figures"]["ttft_p50"]["value"] < 0.080
        assert 0.0095 < row["figures"]["tpot_p50"]["value"] < 0.020


def test_plan_launches_nothing_and_shows_the_commands(bench: Bench) -> None:
    done = bench("plan", bench.scenario(QUICK), "-v")
    assert done.returncode == 0, done.stderr
    assert "1 deployment x 2 loads x 1 repeat = 2 cells" in done.stdout
    assert ENGINE in done.stdout
    assert not (bench.folder / "results").exists()
    data = json.loads(bench("plan", "s.yaml", "--json").stdout)
    assert data["cells"] == 2
    assert [len(launch["cells"]) for launch in data["launches"]] == [2]


BROKEN = {
    "does not start": ("exit_at_start: true", "before it was ready"),
    "is never ready": ("never_ready: true}, ready_timeout_s: 1, options_end: {", "not ready after 1 s"),
    "answers garbage": ("malformed: json", "malformed"),
    "answers errors": ("http_error: 500", "http_status"),
    "never answers": ("ttft_ms: 60000", "timeout"),
    "breaks off": ("cut_after: 2", "cut"),
}


@pytest.mark.parametrize(("option", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_engine_fails_its_cells_and_the_sweep_goes_on(bench: Bench, option: str, reason: str) -> None:
    broken = f"options: {{{option}}}"
    if "options_end" in option:
        broken = "options: {never_ready: true}, ready_timeout_s: 1"
    done = bench("run", bench.scenario(broken, QUICK))
    assert done.returncode == 3, done.stderr
    by_status = {status: [c for c in bench.cells() if c["status"] == status] for status in ("ok", "failed")}
    assert (len(by_status["ok"]), len(by_status["failed"])) == (2, 2)
    assert all(reason in str(cell["reason"]) for cell in by_status["failed"]), by_status["failed"]
    assert reason in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not bench.engines()


def test_an_engine_that_dies_in_the_middle_is_started_again_for_the_other_cells(bench: Bench) -> None:
    # One priming request, six tokenizer probes and one warm-up request, then 8: the first start answers 18 requests and so dies in the
    # warm-up of the second cell (concurrency 4). The second start has that cell behind it and measures the third, with 1 + 6 + 1 + 8.
    scenario = bench.scenario("options: {crash_after: 18, ttft_ms: 5}")
    text = (bench.folder / scenario).read_text()
    third = "  - {concurrency: 1, input_tokens: 20, output_tokens: 8, requests: 8}\n"
    (bench.folder / scenario).write_text(text.replace("repeats:", third + "repeats:"))
    done = bench("run", scenario)
    assert done.returncode == 3, done.stderr
    cells = {(cell["load"]["concurrency"], cell["load"]["input_tokens"]): cell for cell in bench.cells()}
    assert {key: cell["status"] for key, cell in cells.items()} == {(1, 16): "ok", (4, 16): "failed", (1, 20): "ok"}
    assert "exited" in str(cells[4, 16]["reason"])
    assert cells[4, 16]["log_tail"]
    assert str(cells[1, 20]["launch_id"]) == f"{cells[1, 16]['launch_id']}-2"
    assert len(list((bench.run_folder() / "launches").glob("*.json"))) == 2
    assert not bench.engines()


def test_an_engine_that_keeps_dying_is_given_up(bench: Bench) -> None:
    scenario = bench.scenario("options: {crash_after: 2, ttft_ms: 5}")
    more = "  - {concurrency: [1, 2], input_tokens: 20, output_tokens: 8, requests: 8}\n"
    (bench.folder / scenario).write_text((bench.folder / scenario).read_text().replace("repeats:", more + "repeats:"))
    assert bench("run", scenario).returncode == 3
    reasons = [str(cell["reason"]) for cell in bench.cells()]
    assert len(reasons) == 4
    assert sum("not tried" in reason for reason in reasons) == 2


def test_ctrl_c_while_an_engine_is_primed_fails_no_cell(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 8000}")
    process = bench.start("run", scenario)
    deadline = time.monotonic() + 30
    while not bench.engines():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert not bench.cells()
    assert not bench.engines()


def test_a_server_that_stops_answering_is_started_again(bench: Bench) -> None:
    """Requests that timed out go on inside the engine; the next cell must not share it with them."""
    scenario = bench.scenario("options: {ttft_ms: 5, stall_after: 3, stall_s: 60}")
    assert bench("run", scenario).returncode == 3
    assert all("timeout" in str(cell["reason"]) for cell in bench.cells())
    assert not bench.engines()


def test_ctrl_c_stores_what_is_done_leaves_no_process_and_resumes(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 100, itl_ms: 5}", repeats=3)
    process = bench.start("run", scenario)
    bench.wait_for_cells(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "resumes" in err
    assert not bench.engines()
    before = {cell["id"]: cell["started_at"] for cell in bench.cells()}
    done = bench("run", scenario)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr
    after = {cell["id"]: cell["started_at"] for cell in bench.cells()}
    assert len(after) == 6
    assert all(after[cell] == started for cell, started in before.items())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_harness_leaves_no_engine_and_the_run_resumes(bench: Bench, number: signal.Signals) -> None:
    scenario = bench.scenario("options: {ttft_ms: 100, itl_ms: 5}", repeats=2)
    process = bench.start("run", scenario)
    bench.wait_for_cells(1)
    process.send_signal(number)
    process.communicate(timeout=30)
    bench.wait_until_quiet()
    done = bench("run", scenario)
    assert done.returncode == 0, done.stderr
    assert len(bench.cells()) == 4
    assert not list((bench.folder / "leases").glob("*.json"))


def test_a_background_job_of_a_script_can_be_ended(bench: Bench) -> None:
    """A shell starts such a job with SIGINT ignored."""
    scenario = bench.scenario("options: {ttft_ms: 100, itl_ms: 5}", repeats=3)
    command = f"{shlex.quote(sys.executable)} -m enginebench run {scenario} & echo $!; wait"
    shell = subprocess.Popen(
        ["sh", "-c", command], cwd=bench.folder, env=bench.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert shell.stdout is not None
    pid = int(shell.stdout.readline())
    bench.wait_for_cells(1)
    os.kill(pid, signal.SIGTERM)
    _, err = shell.communicate(timeout=30)
    assert "resumes" in err
    assert not bench.engines()


def test_a_finished_run_is_followed_by_a_new_one_and_fresh_forces_one(bench: Bench) -> None:
    scenario = bench.scenario(QUICK)
    for runs, arguments in ((1, ()), (2, ()), (3, ("--fresh",))):
        assert bench("run", scenario, "--no-html", *arguments).returncode == 0
        assert len(list((bench.folder / "results").iterdir())) == runs


def test_fresh_leaves_an_unfinished_run_alone(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 100, itl_ms: 5}", repeats=3)
    process = bench.start("run", scenario)
    bench.wait_for_cells(1)
    process.kill()
    process.communicate(timeout=30)
    bench.wait_until_quiet()
    assert "resuming" not in bench("run", scenario, "--fresh").stderr
    assert len(list((bench.folder / "results").iterdir())) == 2


def test_failed_cells_are_tried_again_on_request(bench: Bench) -> None:
    scenario = bench.scenario("options: {http_error: 503}")
    assert bench("run", scenario).returncode == 3
    before = {file.name: file.stat().st_mtime_ns for file in bench.folder.glob("results/*/cells/*.json")}
    assert bench("run", scenario, "--retry-failed").returncode == 3
    after = {file.name: file.stat().st_mtime_ns for file in bench.folder.glob("results/*/cells/*.json")}
    assert before.keys() == after.keys()
    assert all(after[name] > before[name] for name in before)


def test_a_run_that_somebody_writes_to_is_left_alone(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 200, itl_ms: 5}", repeats=3)
    process = bench.start("run", scenario)
    bench.wait_for_cells(1)
    second = bench("run", scenario, "--retry-failed", "--share-machine")
    assert second.returncode == 2
    assert "another bench is writing to this run" in second.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)


def test_an_engine_that_is_not_installed_is_refused_before_anything_starts(bench: Bench) -> None:
    (bench.folder / "s.yaml").write_text(
        "name: a\nmodels: {m: {random_weights: {layers: 1}}}\n"
        "deployments:\n  - {engine: transformers, model: m, precision: f32}\nloads: [{}]\n"
    )
    done = bench("run", "s.yaml")
    assert done.returncode == 2
    assert "bench engines install transformers" in done.stderr
    assert not (bench.folder / "results").exists()


def test_bad_usage_is_exit_code_2(bench: Bench) -> None:
    for arguments in (
        ["run"],
        ["run", "nowhere"],
        ["run", "quickstart", "--only", "engin=x"],
        ["frobnicate"],
        ["report", "nowhere"],
        ["report"],
    ):
        done = bench(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_every_verb_has_help_with_an_example(bench: Bench) -> None:
    listing = bench("--help").stdout
    for verb in ("run", "plan", "report", "engines", "doctor", "completion"):
        assert verb in listing
        assert "bench " + verb in bench(verb, "--help").stdout
    assert bench("--version").stdout.startswith("bench, version ")
    for shell in ("bash", "zsh", "fish"):
        assert "_BENCH_COMPLETE" in bench("completion", shell).stdout


def test_doctor_and_engines_speak_json(bench: Bench) -> None:
    assert {"ok", "warn", "no"} >= {finding["level"] for finding in json.loads(bench("doctor", "--json").stdout)}
    assert {"fake", "llamacpp", "openai", "transformers"} <= {engine["name"] for engine in json.loads(bench("engines", "--json").stdout)}


def test_reports_of_a_run_in_every_form(bench: Bench) -> None:
    bench("run", bench.scenario(QUICK), "--no-html")
    folder = str(bench.run_folder())
    assert bench("report", folder).stdout.startswith("demo · 1 deployment x 2 loads")
    assert "TTFT" in bench("report", folder, "--table").stdout
    assert "TPOT p50 ms" in bench("report", folder, "--latency").stdout
    assert "TRUST   " in bench("report", folder, "--why").stdout
    assert bench("report", folder, "--md", "-").stdout.count("|") > 20
    assert "ttft_p50" in bench("report", folder, "--csv", "-").stdout
    assert json.loads(bench("report", folder, "--json").stdout)["rows"]
    assert bench("report", "--html", "page.html").returncode == 0
    assert (bench.folder / "page.html").read_text().lstrip().lower().startswith("<!doctype html>")


def test_the_engine_program_exists() -> None:
    assert (WORKERS / ENGINE).is_file()
