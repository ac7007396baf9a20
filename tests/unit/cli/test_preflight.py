"""What cannot run here is said once, in five lines, before anything is stored; nothing that could run is refused."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import enginebench
import pytest
from click.testing import CliRunner, Result
from enginebench.checkpoints.locate import random_path
from enginebench.cli import bench
from enginebench.cli.preflight import refusal
from enginebench.machine import accelerators, pci
from enginebench.runner import missing
from enginebench.runner.preflight import CannotRun, Preflight, preflight

GB = 10**9
MODEL = "models: {mixtral-8x7b: {checkpoints: {bf16: mistralai/Mixtral-8x7B-v0.1}}}"
LOADS = "loads:\n  - {concurrency: [1, 4], input_tokens: 16, output_tokens: 8, requests: 8}\n"


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No accelerator, no Docker daemon, no environment variable, 61 GB of disk, no engine but the built-in fake one."""
    monkeypatch.setattr(pci, "PCI", tmp_path / "pci")
    monkeypatch.setattr(pci, "_ELSEWHERE", {"nvidia": (str(tmp_path / "nvidia"),), "amd": (str(tmp_path / "kfd"),)})
    for module in (accelerators, pci, missing):
        monkeypatch.setattr(module, "gpus", tuple)
    monkeypatch.setattr(pci, "nvidia_gpus", tuple)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=61 * GB))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Docker daemon that is only connected to."""
    folder = Path("/tmp") / f"enginebench-{os.getpid()}"  # noqa: S108  # the path of a socket has at most 107 characters
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        listening.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/s")
        yield
    shutil.rmtree(folder)


def on_bus(tmp_path: Path, *devices: tuple[str, str]) -> None:
    """Devices of the PCI bus: (vendor, class)."""
    for i, (vendor, kind) in enumerate(devices):
        folder = tmp_path / "pci" / f"0000:{i:02x}:00.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")


def scenario(*deployments: str, head: str = MODEL) -> str:
    lines = "".join(f"  - {{{each}}}\n" for each in deployments)
    Path("s.yaml").write_text(f"name: s\n{head}\ndeployments:\n{lines}{LOADS}", encoding="utf-8")
    return "s.yaml"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(bench, arguments, standalone_mode=False)


def lacks(*arguments: str, **how: str) -> list[str]:
    return [each.what for each in preflight(enginebench.plan(*arguments, **how)).missing]


FAKE = "engine: fake, model: any, precision: none"
VLLM = "engine: vllm, model: mixtral-8x7b, precision: bf16, tp: 2"
BOXED = f"{VLLM}, runtime: docker"


def test_the_headline_scenario_on_a_laptop(tmp_path: Path) -> None:
    done = run("run", "scenarios/scout_4xh100.yaml")
    assert done.return_value == 2
    assert (
        done.stderr
        == (
            "bench run scenarios/scout_4xh100.yaml: cannot run here\n"
            f"missing   4x h100-sxm-80gb (here: no GPU)\n"
            f"          no response from a Docker daemon at unix://{tmp_path}/no.sock · 2 more\n"
            "would do  --hardware any · export HF_TOKEN=... · --only ... · runtime: attach\n"
            "see now   bench plan scenarios/scout_4xh100.yaml · bench ceiling\n"
        )
        or len(str(tmp_path)) > 40
    )
    assert not (tmp_path / "results").exists()
    assert done.stdout == ""


def test_with_docker_and_a_token_only_devices_and_disk_are_missing(daemon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    done = run("run", "scout_4xh100")
    assert done.stderr == (
        "bench run scout_4xh100: cannot run here\n"
        "missing   4x h100-sxm-80gb (here: no GPU)\n"
        "          325 GB of disk for weights (here: 61 GB)\n"
        "would do  --hardware any · --only ... · runtime: attach\n"
        "see now   bench plan scout_4xh100 · bench ceiling scout --hardware 4xh100\n"
    )


def test_the_plan_ends_with_the_same_check(daemon: None) -> None:
    said = run("plan", "scout_4xh100").stdout.splitlines()
    assert said[-6:] == [
        "slo: TTFT 2 s, TPOT 50 ms for 95 % of requests",
        "cannot run here",
        "missing   4x h100-sxm-80gb (here: no GPU) · HF_TOKEN is not set",
        "          325 GB of disk for weights (here: 61 GB)",
        "would do  --hardware any · export HF_TOKEN=... · --only ... · runtime: attach",
        "          HF_HOME, ENGINEBENCH_HOME on a larger disk",
    ]


def test_a_plan_begins_with_whether_it_runs_here(daemon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lambda *arguments: run("plan", *arguments).stdout.splitlines()[0]  # noqa: E731
    assert first("scout_4xh100") == "Cannot run here: 4x h100-sxm-80gb (here: no GPU), and 2 more."
    part = scenario(FAKE, "engine: trtllm, model: mixtral-8x7b, precision: bf16")
    assert first(part) == "Runs here in part: 2 of 4 cells; for the others: TensorRT-LLM is not installed here, and 1 more."
    assert first(scenario(FAKE)) == "Runs here: 2 cells."
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=900 * GB))
    assert first("scout_4xh100", "--hardware", "4xh100") == "Runs here: 312 of 360 cells; the others are skipped, see below."


@pytest.mark.clock
def test_the_refusal_takes_less_than_a_second(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "enginebench", "run", "scout_4xh100"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 5), done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1, "of the CPU, whatever else it does"


def test_a_part_goes_on_with_a_warning_for_each_missing_thing() -> None:
    file = scenario(FAKE, "engine: trtllm, model: mixtral-8x7b, precision: bf16", "engine: sglang, model: mixtral-8x7b, precision: bf16")
    found = preflight(enginebench.plan(file))
    assert not found.refused
    assert found.warnings == (
        "TensorRT-LLM is not installed here: 2 of 6 cells skipped; bench engines install trtllm",
        "93 GB of disk for weights (here: 61 GB): 4 of 6 cells skipped; HF_HOME, ENGINEBENCH_HOME on a larger disk",
        "SGLang is not installed here: 2 of 6 cells skipped; bench engines install sglang",
    )
    assert set(found.skipped.values()) == {
        "TensorRT-LLM is not installed here; 93 GB of disk for weights (here: 61 GB)",
        "SGLang is not installed here; 93 GB of disk for weights (here: 61 GB)",
    }
    assert run("plan", file).stdout.splitlines()[-1] == "next: bench run s.yaml"


def test_from_python_it_is_a_user_error(tmp_path: Path) -> None:
    plan = enginebench.plan(scenario(BOXED.replace("precision: bf16", "precision: bf16, container: {hf_cache: false}")))
    with pytest.raises(CannotRun, match="cannot run here: 2 NVIDIA GPUs") as error:
        enginebench.run(plan, results=tmp_path / "results")
    assert isinstance(error.value, enginebench.UserError)
    assert not (tmp_path / "results").exists()


# -- what is missing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ((), ["2 NVIDIA GPUs (here: no GPU)"]),
        ((("0x10de", "0x030200"),), ["2 NVIDIA GPUs (here: no GPU)"]),
        ((("0x10de", "0x030200"), ("0x10de", "0x040300")), ["2 NVIDIA GPUs (here: no GPU)"]),  # its sound is no GPU
        ((("0x1002", "0x120000"), ("0x1002", "0x120000")), ["2 NVIDIA GPUs (here: no GPU)"]),
        ((("0x10de", "0x030200"), ("0x10de", "0x030200")), []),
        ((("0x10de", "0x030200"),) * 8, []),
    ],
)
def test_devices_of_an_image(
    devices: tuple[tuple[str, str], ...], found: list[str], daemon: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000 * GB))
    on_bus(tmp_path, *devices)
    assert lacks(scenario(BOXED)) == found


def test_a_container_on_another_device_needs_that(daemon: None, tmp_path: Path) -> None:
    on_bus(tmp_path, *[("0x10de", "0x030200")] * 4)
    boxed = f"{BOXED}, container: {{variant: rocm, hf_cache: false}}"
    assert lacks(scenario(boxed)) == ["2 AMD GPUs (here: no GPU)"]
    assert lacks(scenario(f"{BOXED}, container: {{gpus: 8, hf_cache: false}}")) == ["8 NVIDIA GPUs (here: no GPU)"]


def test_stated_hardware_is_compared_also_for_processes(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").write_text("{}")
    head = "hardware: 2xh100\nmodels: {qwen3-30b-a3b: {checkpoints: {bf16: ./here}}}"
    file = scenario("engine: transformers, model: qwen3-30b-a3b, precision: bf16, options: {device: cuda}", head=head)
    assert lacks(file)[0] == "2x h100-sxm-80gb (here: no GPU)"
    assert "2x h100-sxm-80gb (here: no GPU)" not in lacks(file, hardware="2xh100"), "what the command states is taken on trust"
    assert "2x h100-sxm-80gb (here: no GPU)" not in lacks(file, hardware="any")
    on_bus(tmp_path, ("0x10de", "0x030200"))
    assert "2x h100-sxm-80gb (here: no GPU)" not in lacks(file), "one is enough for this deployment"


A100, H100 = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("stated", "here", "refused"),
    [
        ("4xh100", [A100] * 4, "4x h100-sxm-80gb (here: 4x NVIDIA A100-SXM4-80GB)"),
        ("4xh100", [H100] * 4, ""),
        ("4xh100", [H100] * 8, ""),
        ("4xh100", [H100] * 3 + [A100], "4x h100-sxm-80gb (here: 3x NVIDIA H100 80GB HBM3, 1x NVIDIA A100-SXM4-80GB)"),
        ("4xh100", ["NVIDIA H100 PCIe"] * 4, "4x h100-sxm-80gb (here: 4x NVIDIA H100 PCIe)"),
        ("4xh100", ["NVIDIA H300"] * 4, "4x h100-sxm-80gb (here: 4x NVIDIA H300)"),
        ("4xa100", [A100] * 4, ""),
        ("4xname=box,memory=80gb,bandwidth=2000gb/s,bf16=300tflops", [A100] * 4, ""),
    ],
)
def test_hardware_is_compared_by_kind(stated: str, here: list[str], refused: str, daemon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue: 4x H100 stated and 4x A100 here were taken for the same."""
    found = tuple(accelerators.Gpu(name, 80 * 2**30) for name in here)
    for module in (accelerators, pci, missing):
        monkeypatch.setattr(module, "gpus", lambda: found)
    monkeypatch.setattr(pci, "nvidia_gpus", lambda: found)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=900 * GB))
    file = scenario(BOXED.replace("tp: 2", "tp: 4"), head=f"hardware: {stated!r}\n{MODEL}")
    assert lacks(file) == ([refused] if refused else [])
    if refused:
        done = run("run", file)
        assert done.return_value == 2
        assert len(done.stderr.splitlines()) <= 5
        assert refused in " ".join(done.stderr.split())
    assert lacks(file, hardware="any") == []


@pytest.mark.parametrize("settings", ["secrets: [NO_SUCH]", "secrets: [NO_SUCH, HOME]"])
def test_environment_variables(settings: str, daemon: None) -> None:
    assert lacks(scenario(f"{FAKE}, runtime: docker, container: {{image: x, {settings}}}")) == ["NO_SUCH is not set"]


def test_an_attached_server_needs_only_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    file = scenario("engine: openai, model: m, runtime: attach, url: 'http://127.0.0.1:9', api_key_env: NO_KEY", head="hardware: 4xh100")
    found = preflight(enginebench.plan(file))
    assert [(each.what, each.fix) for each in found.missing] == [("NO_KEY is not set", "export NO_KEY=...")]
    assert refusal("x", found, ["y"])[2] == "would do  export NO_KEY=..."
    monkeypatch.setenv("NO_KEY", "sk\n")
    assert lacks(file) == ["the environment variable NO_KEY has a character that is invalid in a header, e.g. a line break"]
    monkeypatch.setenv("NO_KEY", "sk")
    assert lacks(file) == []


def test_weights_that_are_here_need_no_disk(daemon: None, tmp_path: Path) -> None:
    on_bus(tmp_path, *[("0x10de", "0x030200")] * 2)
    assert lacks(scenario(BOXED)) == ["93 GB of disk for weights (here: 61 GB)"]
    blobs = tmp_path / "hf" / "hub" / "models--mistralai--Mixtral-8x7B-v0.1" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / "a.incomplete").open("wb") as file:
        file.truncate(40 * GB)  # sparse
    assert lacks(scenario(BOXED)) == [], "the rest has room"
    (blobs / "a.incomplete").rename(blobs / "a")
    with (blobs / "a").open("wb") as file:
        file.truncate(93 * GB)
    assert lacks(scenario(BOXED)) == []


def test_random_weights_are_written_to_the_cache_and_need_disk(tmp_path: Path) -> None:
    """Issue: only downloads were counted."""
    weights = "{layers: 48, hidden: 4096, experts: 64, top_k: 4, expert_intermediate: 2048}"
    head = f"models: {{made: {{random_weights: {weights}}}}}"
    file = scenario("engine: transformers, model: made, precision: [bf16, f32]", head=head)
    needed = [each for each in lacks(file) if each.endswith("of disk for weights (here: 61 GB)")]
    assert needed == ["465 GB of disk for weights (here: 61 GB)"], "of both precisions"
    small = head.replace("layers: 48", "layers: 1").replace("experts: 64", "experts: 8")
    assert not [each for each in lacks(scenario("engine: transformers, model: made, precision: bf16", head=small)) if "disk" in each]
    scenario("engine: transformers, model: made, precision: [bf16, f32]", head=head)
    for each in enginebench.plan(file).scenario.deployments:
        random_path(each.checkpoint, each.precision, "safetensors").mkdir(parents=True)
    assert not [each for each in lacks(file) if "disk" in each], "they are there"


# -- what must not be refused -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_known_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxed = scenario(f"{BOXED}, container: {{hf_cache: false}}")
    monkeypatch.setenv("DOCKER_HOST", "tcp://gpu-box:2375")
    assert lacks(boxed) == [], "a daemon elsewhere has the devices of its machine"
    assert lacks(scenario(BOXED)) == [], "and its disk"


def test_a_device_on_no_bus_may_be_enough(daemon: None, tmp_path: Path) -> None:
    (tmp_path / "nvidia").touch()
    assert lacks(scenario(f"{BOXED}, container: {{hf_cache: false}}")) == []


@pytest.mark.parametrize(
    "deployment",
    [
        FAKE,
        f"{FAKE}, runtime: docker, container: {{image: 'nobody/absent:1.0'}}",  # pulled when its turn comes
        "engine: llamacpp, model: r, precision: f16, runtime: docker, container: {variant: cpu}",
    ],
)
@pytest.mark.parametrize("hardware", [None, "4xh100", "any", "cpu"])
def test_what_needs_no_device_runs_whatever_is_stated(deployment: str, hardware: str | None, daemon: None) -> None:
    file = scenario(deployment, head="models: {r: {random_weights: {layers: 1}}}\nhardware: 4xh100")
    assert lacks(file, **({"hardware": hardware} if hardware else {})) == []


def test_more_than_fits_is_counted() -> None:
    found = Preflight(
        1, tuple(missing.Missing("engine", f"engine number {i:02} is not installed here", f"install {i}") for i in range(9)), {"x": "y"}
    )
    lines = refusal("bench run x", found, ["bench plan x", "bench ceiling"])
    assert lines == [
        "bench run x: cannot run here",
        "missing   engine number 00 is not installed here",
        "          engine number 01 is not installed here · 7 more",
        "would do  install 0 · install 1 · install 2 · install 3 · install 4 · install 5",
        "see now   bench plan x · bench ceiling",
    ]
    assert max(map(len, lines)) <= 80
