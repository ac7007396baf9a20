"""The steps of the GPU kit, most valuable first. A step is commands with one limit; what it makes is in its own folder.

Limits are what one Hopper GPU with 16 cores should need at most; docs/gpu.md says which of them have been measured. Weights that a later
step does not need are removed, because the machine may have little disk.
"""

import os
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from engine_environment import missing

HERE = Path(__file__).resolve().parent
ENGINES = {"vllm": "gpt-oss-20b-bf16", "sglang": "gpt-oss-20b-bf16", "exllamav3": "mixtral-quarter-bf16"}
"""Engines whose wheels a kit may hold -> their checkpoint."""
SERVER = "llama.cpp/bin/llama-server"
MARK = "ENGINEBENCH_GPU_KIT"
"""A variable that every process of a step has, with the folder of the work as its value."""


@dataclass(frozen=True)
class Place:
    """Where this call runs, and at which size."""

    kit: Path
    """The pieces."""
    work: Path
    out: Path
    tiny: bool = False
    patience: float = 1.0
    """Times the limits of the steps, on a machine that is slower than they are meant for."""

    @property
    def sources(self) -> Path:
        return self.work / "kit"

    @property
    def weights(self) -> Path:
        return self.work / "weights"

    @property
    def size(self) -> str:
        return "tiny" if self.tiny else "full"

    def folder(self, step: str) -> Path:
        return self.work / "steps" / step

    def log(self, step: str) -> Path:
        return self.work / "logs" / f"{step}.log"

    @property
    def environment(self) -> Mapping[str, str]:
        """Added to that of the call. The engine's binary is found on PATH; nothing is looked up on a hub."""
        paths = [str(self.work / "env" / "bin"), str(self.work / "llama.cpp" / "bin"), os.environ.get("PATH", "")]
        return {
            "PATH": ":".join(paths), "ENGINEBENCH_HOME": str(self.work / "home"), "ENGINEBENCH_LEASES": str(self.work / "leases"),
            "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1", MARK: str(self.work),
        }  # fmt: skip


@dataclass(frozen=True)
class Step:
    name: str
    limit_s: float
    commands: Sequence[Sequence[str]]
    needs: Sequence[str] = ()
    """Files below the unpacked pieces or WORK that must exist."""
    accepted: frozenset[int] = field(default_factory=lambda: frozenset((0,)))
    """Exit codes of a command after which the next runs."""
    wheels: str = ""
    """Engine whose wheels must be there."""
    makes: str = ""
    """File below WORK that later steps need, so that on another machine the step is run again."""
    tries: int = 2
    """How often it is begun; one that was cut off goes on where it was."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to that of the place."""

    def lacking(self, place: Place) -> str:
        """What this step needs and is not there; '' if nothing is."""
        lacking = [name for name in self.needs if not any((folder / name).exists() for folder in (place.sources, place.work))]
        if self.wheels:
            lacking += missing(place.sources / self.wheels)
        return f"{', '.join(lacking)} is not in the pieces that are here" if lacking else ""


def recipes(size: str) -> Mapping[str, Mapping[str, str]]:
    """Name of a checkpoint -> {reference, precision, form}."""
    found: Mapping[str, Mapping[str, str]] = yaml.safe_load((HERE / "recipes.yaml").read_text())[size]
    return found


def scenario(name: str, place: Place) -> str:
    """Writes scenarios/<name>.yaml with this size's numbers into the step's folder. Returns its path."""
    sizes = yaml.safe_load((HERE / "sizes.yaml").read_text())[place.size]
    text = string.Template((HERE / "scenarios" / f"{name}.yaml").read_text()).substitute(sizes, weights=place.weights)
    path = place.folder(name) / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def measured(name: str, limit_s: float, place: Place, checkpoints: Sequence[str], needs: Sequence[str] = ()) -> Step:
    """A step that makes checkpoints, after it has removed all others, and runs one scenario on them."""
    make = [sys.executable, str(HERE / "weights.py"), "--folder", str(place.weights), "--size", place.size, *checkpoints]
    bench = [str(place.work / "env" / "bin" / "bench"), "run", scenario(name, place), "--results", "results", "--no-html", "--retry-failed"]
    # 3: cells failed or were skipped, which is a result; the run says which
    return Step(name, limit_s, [make, bench], needs, frozenset((0, 3)))


def steps(place: Place) -> list[Step]:
    python, bench = sys.executable, str(place.work / "env" / "bin" / "bench")
    check = [python, str(HERE / "machine_check.py"), "--out", "machine.json", *(["--tiny"] if place.tiny else [])]
    jobs = ["--jobs", "0", *(["--quick"] if place.tiny else [])]
    build = ["bash", str(HERE / "llamacpp_build.sh"), str(place.sources / "llama.cpp"), str(place.work / "llama.cpp"), *jobs]
    compare = [python, str(HERE / "offload_compared.py"), "--results", "results", "--file", str(place.weights / "gpt-oss-120b-mxfp4.gguf")]
    knee = measured("llamacpp-offload", 200, place, ["gpt-oss-120b-mxfp4"], (SERVER,))
    return [
        Step("machine", 120, [[bench, "doctor"], check], accepted=frozenset((0, 1))),
        measured("transformers-gptoss", 240, place, ["gpt-oss-20b-bf16"]),
        measured("transformers-mixtral", 240, place, ["mixtral-bf16"]),
        Step("llamacpp-build", 420, [build], ("llama.cpp/CMakeLists.txt",), makes=SERVER, tries=4),
        measured("llamacpp-gptoss", 150, place, ["gpt-oss-120b-mxfp4"], (SERVER,)),
        Step(knee.name, knee.limit_s, [*knee.commands, compare], (SERVER,), frozenset((0, 1, 3))),
        measured("llamacpp-scout", 150, place, ["scout-q4_k_m"], (SERVER,)),
        measured("transformers-mxfp4", 150, place, ["gpt-oss-20b-mxfp4"]),
        engine("vllm", 240, place),
        engine("sglang", 240, place),
        engine("exllamav3", 420, place, [str(place.work / "exllamav3" / "bin" / "python"), "-c", "import exllamav3"]),  # which compiles it
    ]


def engine(name: str, limit_s: float, place: Place, *prepare: Sequence[str]) -> Step:
    """A step of an engine whose own environment comes from wheels in a folder of its name, if a piece holds them.

    Each compiles kernels at its first start, for which torch's own tools want a whole CUDA toolkit.
    """
    python, cuda = str(place.work / name / "bin" / "python"), str(place.work / "cuda")
    tree = [sys.executable, str(HERE / "cuda_tree.py"), "--folder", cuda]
    folders = ["--wheels", str(place.sources / name), "--folder", str(place.work / name)]
    install = [sys.executable, str(HERE / "engine_environment.py"), *folders]
    use = [str(place.work / "env" / "bin" / "bench"), "engines", "use", name, python]
    run = measured(name, limit_s, place, [ENGINES[name]])
    commands = [tree, install, *prepare, use, *run.commands]
    return Step(name, limit_s, commands, wheels=name, accepted=run.accepted, environment={"CUDA_HOME": cuda, "TORCH_CUDA_ARCH_LIST": "9.0"})
