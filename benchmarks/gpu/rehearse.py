"""The GPU kit end to end on a machine without a GPU: `make gpu-rehearsal`. docs/gpu.md has its table.

Makes what the kit expects to find (a Python 3.12 with torch and transformers, in the versions of BASE), then runs the kit's run.sh there:
without a network (a network namespace with only the loopback), with an empty home folder and no inherited environment, with tiny models, in
several calls, on a stand-in for NVML that plays one device. So every command of the kit runs, but no figure of it means anything.
Needs root for the namespace, and what downloads Python packages before it.
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
from pathlib import Path
from typing import Any

from step_list import ENGINES, Place, steps

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- benchmarks/gpu/rehearse.py writes from here (make gpu-rehearsal) -->", "<!-- to here -->"
BASE = ("torch==2.11.0", "transformers==5.17.0", "accelerate", "numpy", "pandas", "pyarrow", "psutil", "pyyaml", "requests")
"""What the machine has before the kit comes."""
CALL_S, CALLS, PATIENCE = 540, 4, 4
"""PATIENCE: how many times longer than on a GPU machine with 16 cores a step may take on two busy cores."""
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


def call(kit: Path, folder: Path, python: Path, number: int, more: Sequence[str]) -> tuple[float, str]:
    """One call of run.sh, cut off from the network. Returns its seconds and what it printed."""
    home = folder / "machine" / "home"
    home.mkdir(parents=True, exist_ok=True)
    given = {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "KIT": str(kit),
        "WORK": str(folder / "machine" / "work"),
        "OUT": str(folder / "machine" / f"out-{number}"), "PYTHON": str(python), "TINY": "1",
        "BUDGET_S": str(CALL_S * PATIENCE), "PATIENCE": str(PATIENCE), **play(folder),
    }  # fmt: skip
    began = time.monotonic()
    inside = f"ip link set lo up && exec bash {kit / 'run.sh'} {' '.join(more)}"
    done = subprocess.run(["unshare", "--net", "sh", "-c", inside], env=given, cwd=home, text=True, capture_output=True, check=False)
    text = done.stdout + done.stderr
    print(text, flush=True)
    if done.returncode:
        sys.exit(f"rehearse.py: run.sh ended with {done.returncode}")
    return time.monotonic() - began, text


def rehearse(kit: Path, folder: Path, python: Path, server: Path | None, more: Sequence[str]) -> tuple[dict[str, Any], list[float]]:
    """Calls until nothing is left, then one more, which must do nothing. Returns the state and the seconds of each call."""
    shutil.rmtree(folder / "machine", ignore_errors=True)
    if server is not None:
        place = folder / "machine" / "work" / "llama.cpp" / "bin"
        place.mkdir(parents=True)
        shutil.copy2(server, place / "llama-server")
    seconds = []
    for number in range(1, CALLS + 1):
        took, text = call(kit, folder, python, number, more)
        seconds.append(took)
        if "call run.sh again" not in text:
            break
    again, _ = call(kit, folder, python, 9, more)
    seconds.append(again)
    state: dict[str, Any] = json.loads((folder / "machine" / "work" / "state.json").read_text())
    return state, seconds


def table(state: Mapping[str, Mapping[str, Any]], seconds: Sequence[float], versions: str, kit: Path, *, built: bool) -> str:
    """The page's generated part: pieces, steps with limits and times, and what fifteen minutes hold."""
    listed = steps(Place(kit, Path("/nonexistent"), Path("/nonexistent")))
    sizes = [f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in sorted(kit.glob("piece-*.tar"))]
    calls = ", ".join(f"{each:.0f} s" for each in seconds[:-1])
    lines = [
        f"Rehearsed on {time.strftime('%Y-%m-%d')} with {versions}, without a network.",
        f"Pieces: {', '.join(sizes)}. Unpacking and installing took {state['setup']['seconds']:.0f} s.",
        f"Limits were {PATIENCE} times those of the table, because two busy cores are slower.",
        f"Calls of run.sh until nothing was left: {calls}; one more, with nothing to do: {seconds[-1]:.0f} s.",
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
        if step.name == "llamacpp-build" and not built:
            took, result = "-", "not rehearsed: a llama-server was given (`--llama-server`)"
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
    parser.add_argument("--llama-server", type=Path, help="used instead of building one, which takes half an hour on two cores")
    parser.add_argument("--only", action="append", default=[], metavar="STEP")
    parser.add_argument("--write", action="store_true", help="write the table into docs/gpu.md")
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    python = base_python(folder, given.python)
    state, seconds = rehearse(given.kit.absolute(), folder, python, given.llama_server, [f"--only={name}" for name in given.only])
    text = table(state, seconds, versions_of(python), given.kit.absolute(), built=given.llama_server is None)
    print(text)
    if given.write:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + "\n\n" + text + "\n\n" + END + rest.split(END)[1])
    failed = [name for name, found in state.items() if found["status"] != "done"]
    if failed:
        sys.exit(f"not green: {', '.join(failed)}")


if __name__ == "__main__":
    main()
