"""Runs the steps of the GPU kit, most valuable first: each with its own limit, its results saved as soon as it ends, none twice.

What a step leaves is in WORK/steps/<name>; an archive of it, without weights, is in OUT. A step that finished (or failed) is not run again
in a later call; one that was cut off at its limit, or by the end of the call, goes on where `bench run` left off, once. A later call on a
fresh machine knows what is done from the state.json of OUT, of WORK, or beside the pieces. Does not know: what a step does (`step_list`).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from step_list import Place, Step, steps

STATE = "state.json"
TAIL_LINES = 14
GRACE_S = 12.0
"""After SIGINT, on which `bench run` saves its cell and ends its engines."""
HEAVY = (".gguf", ".safetensors", ".o", ".a", ".so", ".tar", ".whl")
"""Suffixes that an archive leaves out, and any file above MOST_BYTES."""
MOST_BYTES = 8 * 2**20
TRIES = 2


@dataclass
class Ledger:
    """What became of each step, in every place where it is kept."""

    files: Sequence[Path]
    known: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, folders: Sequence[Path]) -> "Ledger":
        known: dict[str, dict[str, Any]] = {}
        for file in (folder / STATE for folder in folders):
            if file.exists():
                for name, found in json.loads(file.read_text()).items():
                    if name not in known or found["ended"] > known[name]["ended"]:
                        known[name] = found
        return cls([folder / STATE for folder in folders[:2]], known)

    def note(self, name: str, **facts: Any) -> None:
        self.known[name] = {"tries": self.known.get(name, {}).get("tries", 0), "ended": time.time(), **facts}
        for file in self.files:
            draft = file.with_suffix(".draft")
            draft.write_text(json.dumps(self.known, indent=1) + "\n")
            draft.replace(file)

    def finished(self, name: str) -> bool:
        found = self.known.get(name, {})
        return found.get("status") in ("done", "failed") or found.get("tries", 0) >= TRIES


def execute(step: Step, place: Place, log: IO[bytes]) -> tuple[str, str]:
    """Run a step's commands one after another within its limit. Returns its status and the reason."""
    deadline = time.monotonic() + step.limit_s * place.patience
    for command in step.commands:
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        environment = {**os.environ, **place.environment}
        process = subprocess.Popen(
            command, cwd=place.folder(step.name), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            end(process)
            return "cut off", f"at its limit of {step.limit_s * place.patience:.0f} s"
        except BaseException:
            end(process)
            raise
        if code not in step.accepted:
            return "failed", f"exit code {code}: {' '.join(command[:4])}"
    return "done", ""


def end(process: "subprocess.Popen[bytes]") -> None:
    for how, patience in ((signal.SIGINT, GRACE_S), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, how)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def archive(folder: Path, log: Path, target: Path) -> None:
    """A step's folder and its log as one file; what is heavy stays here."""
    draft = target.with_name(target.name + ".draft")
    with tarfile.open(draft, "w:gz", compresslevel=6) as out:
        out.add(log, f"{folder.name}/{log.name}")
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.suffix not in HEAVY and path.stat().st_size <= MOST_BYTES:
                out.add(path, f"{folder.name}/{path.relative_to(folder)}")
    draft.replace(target)


def perform(step: Step, number: int, place: Place, ledger: Ledger) -> str:
    folder, log = place.folder(step.name), place.work / "logs" / f"{step.name}.log"
    folder.mkdir(parents=True, exist_ok=True)
    tries = ledger.known.get(step.name, {}).get("tries", 0) + 1
    ledger.note(step.name, status="running", reason="", seconds=0.0, tries=tries)
    began = time.monotonic()
    with log.open("ab") as sink:
        status, reason = execute(step, place, sink)
    seconds = round(time.monotonic() - began, 1)
    ledger.note(step.name, status=status, reason=reason, seconds=seconds, limit_s=step.limit_s)
    archive(folder, log, place.out / f"{number:02}-{step.name}.tar.gz")
    tail = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    text = "\n".join([f"== {step.name}: {status}, {seconds} s of {step.limit_s:.0f}{f' ({reason})' if reason else ''}", *tail, ""])
    with (place.out / "summary.txt").open("a") as out:
        out.write(text + "\n")
    print(text, flush=True)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("kit", "work", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=540.0, help="seconds of this call")
    parser.add_argument("--setup", type=float, default=0.0, help="seconds that unpacking and installing took")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the steps and end")
    parser.add_argument("--only", action="append", default=[], metavar="STEP")
    parser.add_argument("--again", action="append", default=[], metavar="STEP", help="forget what became of it")
    given = parser.parse_args()
    place = Place(given.kit, given.work, given.out, tiny=given.tiny, patience=float(os.environ.get("PATIENCE", "1")))
    ledger = Ledger.read([given.work, given.out, given.kit])
    for name in given.again:
        ledger.known.pop(name, None)
    ledger.known.setdefault("setup", {"status": "done", "reason": "", "seconds": given.setup, "ended": time.time(), "tries": 1})
    deadline = time.monotonic() + given.budget
    left = False
    for number, step in enumerate(steps(place), 1):
        if given.only and step.name not in given.only:
            continue
        known, lacking = ledger.known.get(step.name, {}), step.lacking(place)
        if given.list or ledger.finished(step.name) or lacking:
            state = known.get("status") or (f"skipped: {lacking}" if lacking else "to do")
            print(f"{step.name:<24} {step.limit_s:5.0f} s  {state}", flush=True)
        elif step.limit_s * place.patience > deadline - time.monotonic():
            left = True
            print(
                f"{step.name:<24} {step.limit_s:5.0f} s  next call: {max(deadline - time.monotonic(), 0):.0f} s are left of this one",
                flush=True,
            )
        else:
            perform(step, number, place, ledger)
    if left:
        print("not all done: call run.sh again", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
