"""The GPU kit end to end on a machine without a GPU: `make gpu-rehearsal`. docs/gpu.md has its table.

Makes what the kit expects to find (a Python 3.12 with torch and transformers, in the versions of BASE), then runs the kit's run.sh there:
without a network (a network namespace with only the loopback), with an empty home folder and no inherited environment, with tiny models, in
several calls, the first of which has the core alone and is killed in the middle of a step, on a stand-in for NVML that plays one device.
So every command of the kit runs, but no figure of it means anything. Needs root for the namespace, and what downloads Python packages
before it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from step_list import ENGINES, Place, steps

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- benchmarks/gpu/rehearse.py writes from here (make gpu-rehearsal) -->", "<!-- to here -->"
BASE = ("torch==2.11.0", "transformers==5.17.0", "accelerate", "numpy", "pandas", "pyarrow", "psutil", "pyyaml", "requests")
"""What the machine has before the kit comes."""
CALL_S, CALLS, PATIENCE = 540, 6, 4
"""PATIENCE: how many times longer than on a GPU machine with 16 cores a step may take on two busy cores."""
KILLED = "transformers-gptoss"
"""The step in whose middle the first call is killed."""
RETURNED = 3
"""Files that a call may leave in OUT."""
SCRIPT = """\
0 0 total 150754820096
0 0 used 1073741824
0 0 util 98
0 0 sm 1980
0 0 memory 3201
0 0 celsius 55
0 0 limit 700000
0 0 default 700000
0 0 power 80000
0 0 counter 80000
0 0 reasons 0
0 0 pid engine
0.8 0 power 650000
0.8 0 counter 650000
0.8 0 reasons 4
"""
"""One H200 that is idle for 0.8 s after NVML was opened, then at its power limit."""


def base_python(folder: Path, python: str) -> Path:
    """The Python that the kit finds on a machine. Kept between rehearsals."""
    found = folder / "base" / "bin" / "python3"
    mark = folder / "base" / "complete"
    if not mark.exists():
        run([python, "-m", "venv", "--clear", str(folder / "base")])
        # the CPU build of torch, where the index has one: everything else is the same
        torch, *others = BASE
        pip = [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, f"{torch}+cpu"], check=False).returncode:
            run([*pip, torch])
        run([*pip, *others])
        mark.touch()
    return found


def play(folder: Path) -> Mapping[str, str]:
    """The environment in which NVML plays one device."""
    place = folder / "nvml"
    place.mkdir(parents=True, exist_ok=True)
    source = ROOT / "tests" / "engine" / "nvml" / "standin.c"
    run(["cc", "-O1", "-shared", "-fPIC", "-o", str(place / "libnvidia-ml.so.1"), str(source)])
    (place / "script.txt").write_text(SCRIPT)
    names = {"NVML_STANDIN": str(place / "script.txt"), "NVML_STANDIN_NAME": "NVIDIA H200", "NVML_STANDIN_ENGINE": "--port"}
    return {"LD_LIBRARY_PATH": str(place), **names}


@dataclass(frozen=True)
class Machine:
    """What the kit finds, and how patient its calls are."""

    kit: Path
    folder: Path
    python: Path
    patience: float

    @property
    def work(self) -> Path:
        return self.folder / "machine" / "work"

    def start(self, pieces: Path, number: int, more: Sequence[str]) -> subprocess.Popen[str]:
        """A call of run.sh with these pieces, cut off from the network."""
        home = self.folder / "machine" / "home"
        home.mkdir(parents=True, exist_ok=True)
        given = {
            "PATH": f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "KIT": str(pieces), "WORK": str(self.work),
            "OUT": str(self.folder / "machine" / f"out-{number}"), "PYTHON": str(self.python), "TINY": "1",
            "BUDGET_S": str(int(CALL_S * self.patience)), "PATIENCE": str(self.patience), **play(self.folder),
        }  # fmt: skip
        inside = f"ip link set lo up && exec bash {pieces / 'run.sh'} {' '.join(more)}"
        command = ["unshare", "--net", "sh", "-c", inside]
        return subprocess.Popen(command, env=given, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def call(self, number: int, more: Sequence[str]) -> tuple[float, str]:
        """A whole call with all pieces. Returns its seconds and what it printed."""
        began, process = time.monotonic(), self.start(self.kit, number, more)
        text, _ = process.communicate()
        print(text, flush=True)
        if process.returncode:
            sys.exit(f"rehearse.py: run.sh ended with {process.returncode}")
        left = sorted(path.name for path in (self.folder / "machine" / f"out-{number}").iterdir())
        if len(left) > RETURNED:
            sys.exit(f"rehearse.py: a call left more than {RETURNED} files in OUT: {', '.join(left)}")
        return time.monotonic() - began, text

    def state(self) -> dict[str, Any]:
        file = self.work / "state.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def killed_call(self) -> float:
        """A call with the core's pieces alone, killed without a word once KILLED has stored a cell. Returns its seconds."""
        core = self.folder / "machine" / "core"
        core.mkdir()
        for path in (*self.kit.glob("piece-*-core*.tar"), self.kit / "SHA256SUMS", self.kit / "run.sh"):
            (core / path.name).symlink_to(path)
        began, process = time.monotonic(), self.start(core, 0, [])
        cells = self.work / "steps" / KILLED / "results"
        while process.poll() is None and not any(cells.glob("*/cells/*.json")):
            time.sleep(0.2)
        if process.poll() is not None:
            sys.exit(f"rehearse.py: the first call ended before {KILLED} had a cell:\n{process.communicate()[0]}")
        process.kill()
        print(process.communicate()[0], f"-- killed in {KILLED}", sep="\n", flush=True)
        return time.monotonic() - began


def clear(folder: Path, kept: Sequence[Path]) -> None:
    """Remove all of a folder but what is kept."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path in kept:
            continue
        if any(each.is_relative_to(path) for each in kept):
            clear(path, kept)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def rehearse(machine: Machine, built: Path | None, *, keep: bool, more: Sequence[str]) -> tuple[dict[str, Any], list[float]]:
    """A call that is killed, calls until nothing is left, then one more, which must do nothing. Returns the state and each call's seconds.

    built: a llama-server that is used. keep: what an earlier rehearsal compiled stays.
    """
    clear(machine.folder / "machine", [machine.work / "llama.cpp", machine.work / "kit" / "llama.cpp"] if keep else [])
    (machine.folder / "machine").mkdir(exist_ok=True)
    if built is not None:
        place = machine.work / "llama.cpp" / "bin"
        place.mkdir(parents=True)
        shutil.copy2(built, place / "llama-server")
    seconds = [machine.killed_call()]
    for number in range(1, CALLS + 1):
        took, text = machine.call(number, more)
        seconds.append(took)
        if number == 1 and "of a call that was killed" not in text:
            sys.exit("rehearse.py: what the killed call had started was not ended")
        if "call run.sh again" not in text:
            break
    again, _ = machine.call(9, more)
    return machine.state(), [*seconds, again]


def table(state: Mapping[str, Mapping[str, Any]], seconds: Sequence[float], versions: str, machine: Machine, note: str) -> str:
    """The page's generated part: pieces, steps with limits and times, and what fifteen minutes hold. note: on the build of llama.cpp."""
    kit = machine.kit
    listed = steps(Place(kit, Path("/nonexistent"), Path("/nonexistent")))
    sizes = [f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in sorted(kit.glob("piece-*.tar"))]
    calls = ", ".join(f"{each:.0f} s" for each in seconds[1:-1])
    lines = [
        f"Rehearsed on {time.strftime('%Y-%m-%d')} with {versions}, without a network.",
        f"Pieces: {', '.join(sizes)}. Unpacking and installing took {state['setup']['seconds']:.0f} s.",
        f"Limits were {machine.patience:g} times those of the table, because two busy cores are slower.",
        f"The first call had the core alone and was killed in `{KILLED}` after {seconds[0]:.0f} s; the next ended what was left of it.",
        f"Further calls of run.sh until nothing was left: {calls}; one more, with nothing to do: {seconds[-1]:.0f} s.",
        "",
        "| step | limit on a GPU, s | together, s | rehearsed, s | result of the rehearsal |",
        "|---|--:|--:|--:|---|",
    ]
    total = 60.0  # setting up
    for step in listed:
        found, optional = state.get(step.name), step.name in ENGINES
        total += 0 if optional else step.limit_s
        took = f"{found['seconds']:.0f}" if found else "-"
        otherwise = "no wheels in the kit" if optional else "not reached"
        result = ": ".join(filter(None, (found["status"], found["reason"]))) if found else otherwise
        if step.name == "llamacpp-build" and note:
            took, result = "-", f"{result}; {note}"
        lines.append(f"| `{step.name}` | {step.limit_s:.0f} | {'-' if optional else f'{total:.0f}'} | {took} | {result} |")
    return "\n".join(lines)


def versions_of(python: Path) -> str:
    names = "'Python', platform.python_version() + ', torch', torch.__version__ + ', transformers', transformers.__version__"
    code = f"import platform, torch, transformers; print({names})"
    return subprocess.run([str(python), "-I", "-c", code], text=True, capture_output=True, check=True).stdout.strip()


def run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, default=ROOT / "dist" / "gpu-kit")
    parser.add_argument("--folder", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")) / "enginebench-gpu-rehearsal")  # noqa: S108
    parser.add_argument("--python", default="python3.12")
    parser.add_argument("--llama-server", type=Path, help="used instead of building one, which takes long on two cores")
    parser.add_argument("--keep-build", action="store_true", help="keep what an earlier rehearsal compiled of llama.cpp")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="times the limits of the steps")
    parser.add_argument("--only", action="append", default=[], metavar="STEP")
    parser.add_argument("--write", action="store_true", help="write the table into docs/gpu.md")
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    python = base_python(folder, given.python)
    machine = Machine(given.kit.absolute(), folder, python, given.patience)
    state, seconds = rehearse(machine, given.llama_server, keep=given.keep_build, more=[f"--only={name}" for name in given.only])
    note = "a llama-server was given (`--llama-server`)" if given.llama_server else ""
    note = note or ("compiled before by the same script (`--keep-build`)" if given.keep_build else "")
    text = table(state, seconds, versions_of(python), machine, note)
    print(text)
    if given.write:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + "\n\n" + text + "\n\n" + END + rest.split(END)[1])
    failed = [name for name, found in state.items() if found["status"] != "done"]
    if failed:
        sys.exit(f"not green: {', '.join(failed)}")


if __name__ == "__main__":
    main()
