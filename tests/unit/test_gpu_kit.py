"""The GPU kit without a GPU: pieces have the size and hashes they say, steps are limited, saved, and not run twice."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import enginebench as eb
import psutil
import pytest
import yaml
from enginebench.checkpoints.locate import missing
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.engines.registry import discover

KIT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(KIT))


def load(name: str) -> ModuleType:
    """A script of the kit as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"gpu_kit_{name}", KIT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# -- packing -----------------------------------------------------------------------------------------------------------------------


def test_pieces_stay_below_their_size_and_keep_their_order(tmp_path: Path) -> None:
    kit = load("kit")
    for name, size in (("a", 40), ("b", 30), ("c", 25)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size * 1000)
    items = [kit.Item(tmp_path / name, name) for name in "abc"]
    found = list(kit.pieces([("core", items), ("last", [])], 70_000))
    assert [(name, [item.name for item in part]) for name, part in found] == [
        ("core-1", ["a"]),
        ("core-2", ["b"]),
        ("core-3", ["c"]),
        ("last", []),
    ]
    found = list(kit.pieces([("core", items), ("last", [])], 77_600))
    assert [(name, [item.name for item in part]) for name, part in found][:2] == [("core-1", ["a"]), ("core-2", ["b", "c"])]
    for name, part in found:
        kit.write_piece(tmp_path / f"{name}.tar", part)
        assert (tmp_path / f"{name}.tar").stat().st_size <= 77_600
    assert kit.PIECE_MIB < 60


WHEEL = "big-1.0-py3-none-any.whl"


@pytest.fixture
def carried(tmp_path: Path) -> tuple[Path, bytes]:
    """The unpacked pieces of an engine whose wheel is larger than a piece."""
    kit, here, there, most = load("kit"), tmp_path / "here", tmp_path / "there", 30_000
    here.mkdir()
    (here / WHEEL).write_bytes(content := bytes(range(256)) * 200)
    (here / "small-1.0-py3-none-any.whl").write_bytes(b"small")
    found = list(kit.pieces([("vllm", kit.further(here, "vllm", most))], most))
    assert len(found) > 3
    for name, items in found:
        kit.write_piece(tmp_path / f"{name}.tar", items)
        assert (tmp_path / f"{name}.tar").stat().st_size <= most
        with tarfile.open(tmp_path / f"{name}.tar") as piece:
            piece.extractall(there, filter="data")
    return there / "vllm", content


def test_a_wheel_larger_than_a_piece_is_carried_in_parts_and_joined_there(carried: tuple[Path, bytes]) -> None:
    folder, content = carried
    engine = load("engine_environment")
    assert engine.missing(folder) == []
    assert {path.name for path in engine.join(folder)} == {WHEEL, "small-1.0-py3-none-any.whl"}
    assert {path.name for path in folder.iterdir()} == {WHEEL, "small-1.0-py3-none-any.whl", "WHEELS"}
    assert (folder / WHEEL).read_bytes() == content
    assert engine.missing(folder) == []
    assert engine.join(folder), "and again"


def test_an_engine_waits_for_all_parts_of_its_wheels(carried: tuple[Path, bytes], tmp_path: Path) -> None:
    folder, _ = carried
    engine, listed = load("engine_environment"), load("step_list")
    (folder / f"{WHEEL}.part001").rename(tmp_path / "later")
    step = listed.Step("vllm", 1, [], wheels="vllm")
    place = listed.Place(tmp_path, tmp_path, tmp_path)
    (tmp_path / "kit").symlink_to(folder.parent)
    assert step.lacking(place) == f"vllm/{WHEEL}.part001 is not in the pieces that are here"
    assert listed.Step("sglang", 1, [], wheels="sglang").lacking(place) == "sglang/WHEELS is not in the pieces that are here"
    (tmp_path / "later").rename(folder / f"{WHEEL}.part001")
    assert step.lacking(place) == ""
    (folder / f"{WHEEL}.part000").write_bytes(b"of another kit")
    with pytest.raises(ValueError, match="does not have the hash"):
        engine.join(folder)


def test_torch_and_its_libraries_are_not_carried() -> None:
    """What pip's report lists is carried, but for what comes with the machine's torch."""
    wheels = load("engine_wheels")
    names = (
        "torch",
        "nvidia-cudnn-cu13",
        "nvidia-cuda-runtime",
        "triton",
        "NVIDIA_cublas",
        "vllm",
        "torch-c-dlpack-ext",
        "nvidia-cutlass-dsl",
    )
    entry = {"url": "https://host/a%2Bb/x-1%2Bcu130-py3-none-any.whl", "archive_info": {"hashes": {"sha256": "ab"}}}
    report = {"install": [{"metadata": {"name": name, "version": "1"}, "download_info": entry} for name in names]}
    found = list(wheels.wanted(report))
    assert [each.name for each in found] == ["vllm", "torch-c-dlpack-ext", "nvidia-cutlass-dsl"]
    assert found[0].file == "x-1+cu130-py3-none-any.whl"
    assert set(wheels.pins()) == set(load("step_list").ENGINES)
    assert all("==" in pin for pin_list in wheels.pins().values() for pin in pin_list)


def test_what_only_reports_need_is_installed_if_it_is_there(tmp_path: Path) -> None:
    environment, wheel = load("environment"), tmp_path / "enginebench-1-py3-none-any.whl"
    metadata = "Name: enginebench\nRequires-Dist: click<9,>=8\nRequires-Dist: duckdb<2\nRequires-Dist: ray; extra == 'ray'\n"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr("enginebench-1.dist-info/METADATA", metadata)
    assert environment.wanted(wheel, tmp_path) == ["click<9,>=8"]
    (tmp_path / "duckdb-1.5-cp312.whl").touch()
    assert environment.wanted(wheel, tmp_path) == ["click<9,>=8", "duckdb<2"]
    required = {
        re.split(r"[^\w-]", each)[0] for each in tomllib.loads((KIT.parents[1] / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    assert required >= set(environment.LATER)


def test_a_piece_has_the_same_hash_every_time(tmp_path: Path) -> None:
    kit = load("kit")
    (tmp_path / "run.sh").write_text("echo\n")
    items = [kit.Item(tmp_path / "run.sh", "gpu/run.sh")]
    first = kit.write_piece(tmp_path / "1.tar", items)
    (tmp_path / "run.sh").touch()
    assert kit.write_piece(tmp_path / "2.tar", items) == first == hashlib.sha256((tmp_path / "1.tar").read_bytes()).hexdigest()
    with tarfile.open(tmp_path / "1.tar") as piece:
        assert [(member.name, member.mode) for member in piece] == [("gpu/run.sh", 0o755)]


def test_every_script_that_a_step_starts_is_packed() -> None:
    names = {item.name for item in load("kit").scripts()}
    assert {"gpu/steps.py", "gpu/environment.py", "gpu/requirements.txt", "gpu/recipes.yaml", "gpu/scenarios/llamacpp-scout.yaml"} <= names


def test_transformers_is_carried_in_the_version_that_the_adapter_pins() -> None:
    pins = [each.replace("[serving]", "") for each in discover()["transformers"].requirements]
    assert [pin for pin in pins if pin in (KIT / "requirements.txt").read_text().splitlines()] == pins[1:]


def sdist(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for name, text in files.items():
            info = tarfile.TarInfo(f"llama_cpp_python-1.0/{name}")
            info.size = len(text)
            out.addfile(info, io.BytesIO(text.encode()))
    return path


INSTANCES = "vendor/llama.cpp/ggml/src/ggml-cuda/template-instances/"
MMA = '#include "../fattn-mma-f16.cuh"\n' + "".join(
    f"DECL_FATTN_MMA_F16_CASE({heads}, 8, 1);\n" for heads in ("64, 64", "80, 80", "576, 512")
)


def test_sources_are_trimmed_to_what_is_measured(tmp_path: Path) -> None:
    """Kernels for other head sizes and types become stubs; everything that dispatches to them is left alone."""
    files = {
        "vendor/llama.cpp/CMakeLists.txt": "project()\nadd_subdirectory(ggml)\n    add_subdirectory(tests)\n",
        "vendor/llama.cpp/docs/build.md": "no",
        "vendor/llama.cpp/ggml/src/ggml-vulkan/big.cpp": "no",
        "vendor/llama.cpp/ggml/src/ggml-cuda/fattn.cu": "switch",
        "vendor/llama.cpp/../../outside": "no",
        INSTANCES + "fattn-mma-f16-instance-ncols1_8-ncols2_1.cu": MMA,
        INSTANCES + "fattn-tile-instance-dkq40-dv40.cu": "DECL_FATTN_TILE_CASE(40, 40);\n",
        INSTANCES + "fattn-vec-instance-f16-f16.cu": "DECL_FATTN_VEC_CASE(128, GGML_TYPE_F16, GGML_TYPE_F16);\n",
        INSTANCES + "mmq-instance-q4_k.cu": "DECL_MMQ_CASE(GGML_TYPE_Q4_K);\n",
        INSTANCES + "mmq-instance-iq1_s.cu": "DECL_MMQ_CASE(GGML_TYPE_IQ1_S);\n",
        INSTANCES + "mmq-instance-nvfp4.cu": "DECL_MMQ_CASE(GGML_TYPE_NVFP4);\nDECL_MMQ_CASE_W4A4(GGML_TYPE_NVFP4);\n",
        "llama_cpp/llama.py": "no",
        ".git/modules/vendor/llama.cpp/index": "no",
    }
    sources, folder = load("llamacpp_sources"), tmp_path / "llama.cpp"
    found = {str(path.relative_to(folder)) for path in sources.pack_sources(sdist(tmp_path / "l.tar.gz", files), folder)}
    kept = {name.removeprefix("vendor/llama.cpp/") for name in files if "CMake" in name or "ggml-cuda" in name}
    kept -= {
        INSTANCES.removeprefix("vendor/llama.cpp/") + name
        for name in ("fattn-tile-instance-dkq40-dv40.cu", "mmq-instance-iq1_s.cu", "mmq-instance-nvfp4.cu")
    }
    assert found == kept | {"FROM", "ggml/src/ggml-cuda/left-out.cu"}
    assert (folder / "CMakeLists.txt").read_text() == "project()\nadd_subdirectory(ggml)\n\n"
    cuda = folder / "ggml" / "src" / "ggml-cuda"
    mma = (cuda / "template-instances" / "fattn-mma-f16-instance-ncols1_8-ncols2_1.cu").read_text()
    assert "CASE(64, 64, 8, 1)" in mma
    assert "80" not in mma
    stubs = (cuda / "left-out.cu").read_text()
    assert stubs.count("GGML_ABORT") == 6
    assert stubs.count("template <ggml_type, ggml_prec = GGML_PREC_Q8> void mul_mat_q_case(") == 1, "a default argument is stated once"
    assert "void mul_mat_q_case<GGML_TYPE_NVFP4, GGML_PREC_Q4>(" in stubs
    assert "template <> void ggml_cuda_flash_attn_ext_mma_f16_case<576, 512, 8, 1>(ggml_backend_cuda_context &, ggml_tensor *)" in stubs
    assert "mul_mat_q_case<GGML_TYPE_IQ1_S>" in stubs
    assert "GGML_TYPE_Q4_K" not in stubs
    before = (folder / "FROM").stat().st_mtime_ns
    sources.pack_sources(tmp_path / "l.tar.gz", folder)
    assert (folder / "FROM").stat().st_mtime_ns == before, "not done twice"


# -- what is measured --------------------------------------------------------------------------------------------------------------

PUBLISHED = {"gpt-oss-20b-bf16": 20.9, "mixtral-bf16": 46.7, "gpt-oss-120b-mxfp4": 116.8, "scout-q4_k_m": 107.8}
"""Billions of parameters as published (catalogue of physics); the last two recipes have half of the layers."""


def test_recipes_have_the_published_geometry() -> None:
    found = yaml.safe_load((KIT / "recipes.yaml").read_text())
    assert found["full"].keys() == found["tiny"].keys()
    for name, billions in PUBLISHED.items():
        model = RandomMoE.from_reference(found["full"][name]["reference"])
        tables = sum(t.shape[0] * t.shape[1] for t in model.tensors() if t.name in ("token_embd.weight", "output.weight")) / 1e9
        halves = 2 if name in ("gpt-oss-120b-mxfp4", "scout-q4_k_m") else 1
        assert halves * (model.parameters / 1e9 - tables) + tables == pytest.approx(billions, rel=0.01), name
    for size in ("full", "tiny"):
        for name, recipe in found[size].items():
            form = "gguf" if recipe["form"] == "gguf" else "safetensors"
            assert missing(recipe["reference"], recipe["precision"], form, KIT) is None, name


def shape(deployment: Any) -> tuple[Any, ...]:
    """What an engine's parser sees of a deployment, but for its numbers."""
    options = {name: value if isinstance(value, str | bool) else type(value) for name, value in deployment.options.items()}
    return deployment.precision, deployment.runtime, sorted(options.items(), key=str)


@cache
def golden(engine: str) -> list[tuple[Any, ...]]:
    """The shapes of an engine's golden deployments that it accepts."""
    found = yaml.safe_load((KIT.parents[1] / "tests" / "contracts" / "deployments" / f"{engine}.yaml").read_text())
    defaults = {"runtime": "process", "options": {}}
    return [shape(SimpleNamespace(**defaults | entry)) for entry in found.values() if "refused" not in entry]


def test_every_scenario_is_planned_at_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    weights, listed = load("weights"), load("step_list")
    place = listed.Place(tmp_path, tmp_path, tmp_path, tiny=True)
    place.weights.mkdir()
    for name in listed.recipes("tiny"):
        said = weights.make(place.weights, name, "tiny")
        assert "GB/s" in said
        assert weights.make(place.weights, name, "tiny") == f"{name} is there"
    names = sorted(file.stem for file in (KIT / "scenarios").glob("*.yaml"))
    for name in names:
        plan = eb.plan(listed.scenario(name, place))
        assert len(plan.cells) >= 1
        for deployment in {id(cell.deployment): cell.deployment for cell in plan.cells}.values():
            assert shape(deployment) in golden(deployment.engine), "make contracts asks the engine's own parser about it"
        full = yaml.safe_load(Path(listed.scenario(name, listed.Place(tmp_path, tmp_path / "full", tmp_path))).read_text())
        assert full["loads"][0]["concurrency"][-1] >= 4
    assert set(names) == {step.name for step in listed.steps(place)} - {"machine", "llamacpp-build"}


# -- running -----------------------------------------------------------------------------------------------------------------------


class Runner:
    """steps.py with steps of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.module, self.listed = load("steps"), load("step_list")
        self.work, self.out, self.kit = (folder / name for name in ("work", "out", "kit"))
        for each in (self.work / "logs", self.out, self.kit):
            each.mkdir(parents=True, exist_ok=True)
        self.steps: list[Any] = []

    def step(self, name: str, script: str, limit_s: float = 20, **more: Any) -> None:
        self.steps.append(self.listed.Step(name, limit_s, [["sh", "-c", script]], **more))

    def call(self, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
        monkeypatch.setattr(self.module, "steps", lambda _: self.steps)
        folders = ["--kit", str(self.kit), "--work", str(self.work), "--out", str(self.out)]
        monkeypatch.setattr(sys, "argv", ["steps.py", *folders, *more])
        assert self.module.main() == 0

    def status(self, folder: Path | None = None) -> dict[str, str]:
        known = json.loads(((folder or self.out) / "state.json").read_text())
        return {name: known[name]["status"] for name in known if name != "setup"}


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_a_step_that_ended_is_saved_at_once_and_not_run_again(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.step("good", "echo ran >> ../../count; echo 1 > found.json; echo 1 > heavy.gguf; echo finished")
    runner.step("bad", "echo broken; exit 7")
    runner.step("lacking", "exit 0", needs=("vllm/*.whl",))
    runner.call(monkeypatch)
    assert runner.status() == runner.status(runner.work) == {"good": "done", "bad": "failed"}
    assert sorted(path.name for path in runner.out.iterdir()) == ["results.tar.gz", "state.json", "summary.txt"]
    with tarfile.open(runner.out / "results.tar.gz") as saved:
        assert sorted(saved.getnames()) == ["bad/bad.log", "good/found.json", "good/good.log"], "no weights"
    text = (runner.out / "summary.txt").read_text()
    assert "finished" in text
    assert "exit code 7" in text
    runner.call(monkeypatch)
    assert (runner.work / "count").read_text() == "ran\n", "once"
    runner.call(monkeypatch, "--again", "good", "--only", "good")
    assert (runner.work / "count").read_text() == "ran\nran\n"


def test_a_fresh_machine_knows_what_is_done_from_the_state_beside_the_pieces(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.step("good", "echo ran >> ../../count")
    runner.call(monkeypatch)
    (runner.out / "state.json").rename(runner.kit / "state.json")
    (runner.work / "state.json").unlink()
    runner.call(monkeypatch)
    assert (runner.work / "count").read_text() == "ran\n"


def test_what_was_built_on_another_machine_is_built_again_if_a_step_needs_it(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.step("build", "echo ran >> ../../count; touch ../../server", makes="server")
    runner.step("serve", "echo here", needs=("server",))
    runner.call(monkeypatch, "--only", "build")
    (runner.work / "server").unlink()  # a fresh machine, and a state.json that came with the pieces
    runner.call(monkeypatch)
    assert (runner.work / "count").read_text() == "ran\nran\n"
    assert runner.status() == {"build": "done", "serve": "done"}
    (runner.work / "server").unlink()
    runner.call(monkeypatch)
    assert (runner.work / "count").read_text() == "ran\nran\n", "nothing is left that needs it"


def test_the_disk_holds_one_checkpoint(tmp_path: Path) -> None:
    weights = load("weights")
    for name in ("one.gguf", "two.gguf", "three.gguf.draft"):
        (tmp_path / name).touch()
    (tmp_path / "four").mkdir()
    weights.remove_others(tmp_path, ["two", "five"])
    assert [path.name for path in tmp_path.iterdir()] == ["two.gguf"]


def test_a_toolkit_without_cublas_becomes_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvcc may be a script elsewhere, so its toolkit is where it says it is."""
    tree, root, package = load("cuda_tree"), tmp_path / "cuda", tmp_path / "packages" / "cu13"
    for folder in (root / "bin", root / "nvvm", root / "targets" / "x86_64-linux" / "lib", package / "lib", package / "include"):
        folder.mkdir(parents=True)
    (root / "targets" / "x86_64-linux" / "lib" / "libcudart.so").touch()
    (package / "lib" / "libcublas.so.13").touch()
    (package / "include" / "cublas_v2.h").touch()
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "nvcc").write_text(f"#!/bin/sh\necho '#$ _HERE_={root}/bin' >&2\n")
    (tmp_path / "path" / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    monkeypatch.setattr(tree, "package_folders", lambda: iter([package]))
    assert tree.toolkit() == root
    assert not tree.is_whole(root)
    tree.make(root, tmp_path / "tree")
    assert tree.is_whole(tmp_path / "tree")
    assert (tmp_path / "tree" / "lib64" / "libcudart.so").exists()
    assert (tmp_path / "tree" / "targets" / "x86_64-linux" / "include" / "cublas_v2.h").exists()


def test_a_step_is_cut_off_at_its_limit_and_goes_on_once(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.step("long", "echo part > part.json; exec sleep 30", limit_s=0.3)
    runner.step("next", "echo here")
    monkeypatch.setattr(runner.module, "GRACE_S", 2.0)
    runner.call(monkeypatch)
    assert runner.status() == {"long": "cut off", "next": "done"}
    with tarfile.open(runner.out / "results.tar.gz") as saved:
        assert "long/part.json" in saved.getnames(), "what it had is kept"
    runner.call(monkeypatch)
    runner.call(monkeypatch)
    assert json.loads((runner.out / "state.json").read_text())["long"]["tries"] == 2


def test_results_are_saved_while_a_step_runs(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step ends when it finds its own result in the archive."""
    found = f"tar -tzf {runner.out}/results.tar.gz 2> /dev/null | grep -q part.json"
    runner.step("long", f"echo part > part.json; until {found}; do sleep 0.02; done", limit_s=60)
    monkeypatch.setattr(runner.module, "SAVE_S", 0.05)
    runner.call(monkeypatch)
    assert runner.status() == {"long": "done"}


def test_an_archive_has_the_smallest_files_first(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.module, "MOST_IN_ALL", 40_000)
    runner.step("good", "for n in 1 2 3; do head -c 15000 /dev/urandom > $n.bin; done; echo 1 > small.json")
    runner.call(monkeypatch)
    with tarfile.open(runner.out / "results.tar.gz") as saved:
        assert saved.getnames()[:2] == ["good/small.json", "good/good.log"]
        assert len(saved.getnames()) == 4, "the third is left out"


def test_what_a_killed_call_has_left_running_is_ended(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps are sessions of their own, so that a signal to the call does not reach them."""
    mark = runner.listed.MARK
    ours = subprocess.Popen(["sleep", "60"], env={mark: str(runner.work)}, start_new_session=True)
    other = subprocess.Popen(["sleep", "60"], env={mark: "/another/folder"}, start_new_session=True)
    try:
        runner.call(monkeypatch)
        assert not psutil.pid_exists(ours.pid)
        assert other.poll() is None
        assert "ended 1 processes of a call that was killed" in capsys.readouterr().out
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_no_step_starts_that_may_outlast_the_call(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.step("short", "exit 0", limit_s=5)
    runner.step("long", "exit 0", limit_s=500)
    runner.call(monkeypatch, "--budget", "60")
    assert runner.status() == {"short": "done"}
    assert "call run.sh again" in capsys.readouterr().out
    runner.call(monkeypatch, "--budget", "540")
    assert runner.status() == {"short": "done", "long": "done"}


def test_a_damaged_piece_is_refused(tmp_path: Path) -> None:
    piece = tmp_path / "piece-1-core.tar"
    piece.write_bytes(b"damaged")
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'whole').hexdigest()}  {piece.name}\n")
    environment = {"PATH": "/usr/bin:/bin", "KIT": str(tmp_path), "WORK": str(tmp_path / "work"), "PYTHON": sys.executable}
    done = subprocess.run(["bash", str(KIT / "run.sh")], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "piece-1-core.tar does not have the hash in SHA256SUMS" in done.stderr
    piece.unlink()
    done = subprocess.run(["bash", str(KIT / "run.sh")], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "is not here yet" in done.stdout) == (2, True)
    assert "a piece of the core" in done.stderr


def test_the_limits_of_a_call_hold_the_first_steps(tmp_path: Path) -> None:
    """Each step fits a call of nine minutes after a minute of setting up; the first call holds the machine check and transformers."""
    listed = load("step_list")
    place = listed.Place(tmp_path, tmp_path, tmp_path)
    limits = {step.name: step.limit_s for step in listed.steps(place)}
    assert max(limits.values()) <= 480
    assert limits["machine"] + limits["transformers-gptoss"] <= 480
