"""`bench run` with `runtime: docker`: the same records as from a process, and nothing left behind however it ends."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from enginebench.machine.pci import most_devices

from .conftest import FAKE, IMAGE, Bench, boxed, until

pytestmark = pytest.mark.usefixtures("nothing")


def test_a_container_is_measured_as_a_process_is(bench: Bench, daemon: Any) -> None:
    both = FAKE.replace("runtime: docker", "runtime: [process, docker]")
    done = bench("run", bench.scenario(both + boxed(memory="512MiB")), "--no-html")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "fake docker" in done.stdout
    by_runtime = {record["deployment"]["runtime"]: record for record in bench.records("launches")}
    boxed_one, plain_one = by_runtime["docker"], by_runtime["process"]
    assert boxed_one["startup"]["identity"] == plain_one["startup"]["identity"] == "proven"
    assert boxed_one["startup"]["container"]["image"] == IMAGE
    assert boxed_one["startup"]["container"]["id"] == daemon.images.get(IMAGE).id
    assert any("named by a tag" in note for note in boxed_one["startup"]["command"]["notes"])
    assert plain_one["startup"]["container"] == {}
    for cell in bench.records("cells"):
        assert (cell["status"], cell["identity"]) == ("ok", "proven")
        assert cell["counters"]["totals"]["output_tokens"] == 8 * 8
    assert "fake engine on 0.0.0.0:8000" in (bench.run_folder() / "logs" / f"{boxed_one['id']}.log").read_text()


def test_members_share_a_network_and_each_has_a_log(bench: Bench) -> None:
    done = bench("run", bench.scenario(FAKE + "options: {disaggregated: true}, " + boxed()), "--no-html")
    assert done.returncode == 0, done.stderr + done.stdout
    (launch,), (cell,) = bench.records("launches"), bench.records("cells")
    assert [member["name"] for member in launch["startup"]["command"]["members"]] == ["prefill", "decode"]
    assert cell["counters"]["totals"]["output_tokens"] == 8 * 8
    assert {file.name for file in bench.run_folder().glob("logs/*")} == {f"{launch['id']}{n}.log" for n in ("", ".prefill", ".decode")}


@pytest.mark.parametrize("written", ["process", "docker"])
def test_the_command_line_chooses_the_runtime(bench: Bench, written: str) -> None:
    bench.scenario(FAKE.replace("docker", written) + (boxed() if written == "docker" else ""))
    for runtime in ("process", "docker"):
        (launch,) = json.loads(bench("plan", "s.yaml", "--json", "--runtime", runtime).stdout)["launches"]
        assert launch["deployment"]["runtime"] == runtime


def test_the_plan_says_what_docker_would_be_told(bench: Bench) -> None:
    settings = boxed(memory="2GiB", gpus=2, secrets=["HF_TOKEN"])
    bench.env["HF_TOKEN"] = "hf_do_not_show"
    done = bench("plan", bench.scenario(FAKE + "options: {disaggregated: true}, " + settings), "-v")
    main, prefill, decode = (
        next(line for line in done.stdout.splitlines() if f"enginebench-{n} " in line) for n in ("main", "prefill", "decode")
    )
    assert "--publish=127.0.0.1::8000" in prefill
    assert "--network=container:enginebench-prefill" in main
    assert "--network=container:enginebench-prefill" in decode
    for line in (main, prefill, decode):
        assert all(flag in line for flag in ("--gpus=2", f"--memory={2 * 2**30}", "--env=HF_TOKEN "))
    assert "hf_do_not_show" not in done.stdout


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (boxed(image="nobody.invalid/absent:1.0"), "the image nobody.invalid/absent:1.0 could not be had: "),
        (boxed(cpuset="4000-4001"), "container.cpuset names CPUs that the daemon's machine lacks"),
        (boxed(mounts=["/no/such/folder:/x"]), "a folder to mount does not exist on the daemon's machine"),
        (boxed(mounts=[]), "exited with code 127 (the image does not contain the program?) before it was ready"),
        (boxed(address="203.0.113.9"), "container.address is not an address of the daemon's machine"),
        ("options: {never_ready: true}, ready_timeout_s: 1, " + boxed(), "not ready after 1 s; the last GET /health"),
        ("options: {exit_at_start: true}, " + boxed(), "exited with code"),
    ],
)  # fmt: skip
def test_what_cannot_start_is_one_sentence(bench: Bench, deployment: str, reason: str) -> None:
    done = bench("run", bench.scenario(FAKE + deployment), "--no-html")
    assert done.returncode == 3, done.stderr
    (cell,) = bench.records("cells")
    assert cell["status"] == "failed"
    assert str(cell["reason"]).startswith(reason)


@pytest.mark.parametrize(
    ("container", "problem"),
    [
        ('{image: "nobody/absent:1.0", secrets: [NO_SUCH_VARIABLE]}', "NO_SUCH_VARIABLE is not set"),
        ("{variant: nosuch}", "there is no image for fake/nosuch"),
        ('{image: "nobody/absent:1.0", offline: true}', "the image nobody/absent:1.0 is not here, and the deployment is offline"),
    ],
)
def test_what_no_daemon_could_mend_is_refused_before_anything_starts(bench: Bench, container: str, problem: str) -> None:
    done = bench("run", bench.scenario(FAKE + f"container: {container}"), "--no-html")
    assert done.returncode == 2
    assert done.stderr.startswith(f"bench run s.yaml: cannot run here\nmissing   {problem}\n")
    assert not (bench.folder / "results").exists()


def test_gpus_where_there_are_none_are_refused_or_skip_the_cell(bench: Bench, daemon: Any) -> None:
    if "nvidia" in daemon.info().get("Runtimes", {}) or most_devices("nvidia") != 0:
        pytest.skip("this machine may have GPUs to give")
    done = bench("run", bench.scenario(FAKE + boxed(gpus=2)), "--no-html")
    assert (done.returncode, done.stderr.splitlines()[1]) == (2, "missing   2 NVIDIA GPUs (here: no GPU)")
    done = bench("run", "s.yaml", "--hardware", "any", "--no-html")
    (cell,) = bench.records("cells")
    assert cell["status"] == "skipped", done.stderr
    assert "the Docker daemon cannot provide the requested GPUs" in str(cell["reason"])


def test_without_a_daemon_nothing_starts(bench: Bench) -> None:
    bench.env["DOCKER_HOST"] = f"unix://{bench.folder}/no.sock"
    done = bench("run", bench.scenario(FAKE + boxed()), "--no-html")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert f"missing no response from a Docker daemon at unix://{bench.folder}/no.sock" in said
    assert not (bench.folder / "results").exists()


# -- nothing is left behind ------------------------------------------------------------------------------------------------------

LONG = "concurrency: 2, requests: 0, duration_s: 20"
SLOW = FAKE + "options: {ttft_ms: 20, itl_ms: 5}, "


@contextlib.contextmanager
def measuring(bench: Bench, settings: str) -> Iterator[subprocess.Popen[str]]:
    """A run whose container is up and is being measured."""
    bench.scenario(SLOW + settings, load=LONG)
    with bench.start("run", "s.yaml", "--no-html") as process:
        try:
            until(lambda: list(bench.folder.glob("results/*/launches/*.json")), "nothing was started")
            yield process
        finally:
            process.kill()
            process.communicate(timeout=90)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_harness_that_is_gone_leaves_nothing(bench: Bench, daemon: Any, number: signal.Signals) -> None:
    with measuring(bench, boxed()) as process:
        assert {left.kind for left in bench.left(daemon)} == {"container", "network"}
        process.send_signal(number)
        process.communicate(timeout=90)
        until(lambda: not bench.left(daemon), "something was left behind")


def test_the_next_start_removes_the_container_of_a_harness_that_was_killed_with_its_guardian(bench: Bench, daemon: Any) -> None:
    with measuring(bench, boxed()) as process:
        children = psutil.Process(process.pid).children()
        for guardian in (child for child in children if any("container/guardian.py" in word for word in child.cmdline())):
            guardian.kill()
        process.kill()
        process.communicate(timeout=90)
    left = bench.left(daemon)
    assert {item.kind for item in left} == {"container", "network"}
    again = bench("run", bench.scenario(FAKE + boxed()), "--no-html")  # a short one
    assert again.returncode == 0, again.stderr
    for item in left:
        assert f"removed {item.text}" in again.stderr
    assert not bench.left(daemon)


def test_clean_removes_what_nobody_owns_and_nothing_else(bench: Bench, daemon: Any) -> None:
    with measuring(bench, boxed()) as process:
        for child in psutil.Process(process.pid).children():
            if "container/guardian" in " ".join(child.cmdline()):
                child.kill()
        assert "left" in bench("clean").stderr
        assert len(bench.left(daemon)) == 2, "its owner runs"
        process.kill()
        process.communicate(timeout=90)
    assert all(not left.live for left in bench.left(daemon))
    (found,) = [f for f in json.loads(bench("doctor", "--json").stdout) if f["topic"] == "containers"]
    assert found["advice"] == "bench clean removes them"
    said = bench("clean").stderr
    assert len(re.findall("^removed (?:container|network) ", said, re.MULTILINE)) == 2
    assert not bench.left(daemon)


def test_a_container_that_is_killed_while_measuring_fails_the_cell(bench: Bench, daemon: Any) -> None:
    with measuring(bench, boxed()) as process:
        (container,) = [left for left in bench.left(daemon) if left.kind == "container"]
        daemon.containers.get(container.id).kill()
        process.communicate(timeout=90)
    (cell,) = bench.records("cells")
    assert cell["reason"] in (
        "the engine killed by SIGKILL (out of memory?) during the cell",
        "warm-up: the engine killed by SIGKILL (out of memory?) during the cell",
    )
