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

HERE = Path(__file__).resolve().parent
ENGINES = {"vllm": "gpt-oss-20b-bf16", "sglang": "gpt-oss-20b-bf16", "exllamav3": "mixtral-quarter-bf16"}
"""Engines whose wheels a kit may hold -> their checkpoint."""


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

    @property
    def environment(self) -> Mapping[str, str]:
        """Added to that of the call. The engine's binary is found on PATH; nothing is looked up on a hub."""
        paths = [str(self.work / "env" / "bin"), str(self.work / "llama.cpp" / "bin"), os.environ.get("PATH", "")]
        return {
            "PATH": ":".join(paths), "ENGINEBENCH_HOME": str(self.work / "home"), "ENGINEBENCH_LEASES": str(self.work / "leases"),
            "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1",
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

    def lacking(self, place: Place) -> str:
        """What this step needs and is not there; '' if nothing is."""
        missing = [name for name in self.needs if not any(any(folder.glob(name)) for folder in (place.sources, place.work))]
        return f"{', '.join(missing)} is not in the pieces that are here" if missing else ""


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


def measured(
    name: str, limit_s: float, place: Place, checkpoints: Sequence[str], needs: Sequence[str] = (), *, drop: Sequence[str] = ()
) -> Step:
    """A step that makes checkpoints and runs one scenario on them. drop: checkpoints of earlier steps that are removed first."""
    python = sys.executable
    make = [
        python,
        str(HERE / "weights.py"),
        "--folder",
        str(place.weights),
        "--size",
        place.size,
        *(f"--drop={each}" for each in drop),
        *checkpoints,
    ]
    bench = [str(place.work / "env" / "bin" / "bench"), "run", scenario(name, place), "--results", "results", "--no-html", "--retry-failed"]
    # 3: cells failed or were skipped, which is a result; the run says which
    return Step(name, limit_s, [make, bench], needs, frozenset((0, 3)))


def steps(place: Place) -> list[Step]:
    python, bench = sys.executable, str(place.work / "env" / "bin" / "bench")
    llamacpp = ("llama.cpp/bin/llama-server",)
    check = [python, str(HERE / "machine_check.py"), "--out", "machine.json", *(["--tiny"] if place.tiny else [])]
    jobs = ["--jobs", "0", *(["--cpu"] if place.tiny else [])]
    build = ["bash", str(HERE / "llamacpp_build.sh"), str(place.sources / "llama.cpp"), str(place.work / "llama.cpp"), *jobs]
    compare = [python, str(HERE / "offload_compared.py"), "--results", "results", "--file", str(place.weights / "gpt-oss-120b-mxfp4.gguf")]
    knee = measured("llamacpp-offload", 200, place, ["gpt-oss-120b-mxfp4"], llamacpp)
    return [
        Step("machine", 120, [[bench, "doctor"], check], accepted=frozenset((0, 1))),
        measured("transformers-gptoss", 240, place, ["gpt-oss-20b-bf16"]),
        measured("transformers-mixtral", 200, place, ["mixtral-bf16"]),
        Step("llamacpp-build", 420, [build], ("llama.cpp/CMakeLists.txt",)),
        measured("llamacpp-gptoss", 150, place, ["gpt-oss-120b-mxfp4"], llamacpp),
        Step(knee.name, knee.limit_s, [*knee.commands, compare], llamacpp, frozenset((0, 1, 3))),
        measured("llamacpp-scout", 150, place, ["scout-q4_k_m"], llamacpp, drop=["gpt-oss-120b-mxfp4"]),
        measured("transformers-mxfp4", 150, place, ["gpt-oss-20b-mxfp4"], drop=["scout-q4_k_m"]),
        *(engine(name, 240, place, checkpoint) for name, checkpoint in ENGINES.items()),
    ]


def engine(name: str, limit_s: float, place: Place, checkpoint: str) -> Step:
    """A step of an engine whose own environment comes from wheels in a folder of its name, if a piece holds one."""
    python = str(place.work / name / "bin" / "python")
    install = [
        sys.executable,
        str(HERE / "engine_environment.py"),
        "--wheels",
        str(place.sources / name),
        "--folder",
        str(place.work / name),
    ]
    use = [str(place.work / "env" / "bin" / "bench"), "engines", "use", name, python]
    run = measured(name, limit_s, place, [checkpoint])
    return Step(name, limit_s, [install, use, *run.commands], (f"{name}/*.whl*",), run.accepted)
