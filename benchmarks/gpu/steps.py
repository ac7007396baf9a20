"""Runs the steps of the GPU kit, most valuable first: each with its own limit, its results saved while it runs, none twice.

What a step leaves is in WORK/steps/<name>; OUT has one archive of all of them, without weights, and never more than three files, because
some machines give few files back. A step that finished (or failed) is not run again in a later call; one that was cut off at its
limit, or by the end of the call, goes on where `bench run` left off, once. A later call on a fresh machine knows what is done from the
state.json of OUT, of WORK, or beside the pieces. Does not know: what a step does (`step_list`).
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
from step_list import MARK, Place, Step, steps

STATE, ARCHIVE, SUMMARY = "state.json", "results.tar.gz", "summary.txt"
TAIL_LINES = 14
SAVE_S = 20.0
"""How often the results of a step that runs are saved."""
GRACE_S = 12.0
"""After SIGINT, on which `bench run` saves its cell and ends its engines."""
HEAVY = (".gguf", ".safetensors", ".o", ".a", ".so", ".tar", ".whl")
"""Suffixes that an archive leaves out, and any file above MOST_BYTES."""
MOST_BYTES, MOST_IN_ALL = 8 * 2**20, 15 * 2**20
"""Of one file, and of all files of an archive before they are compressed: the smallest are kept."""


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

    def ended(self, step: Step) -> bool:
        found = self.known.get(step.name, {})
        return found.get("status") in ("done", "failed") or found.get("tries", 0) >= step.tries

    def finished(self, step: Step, others: Sequence[Step], place: Place) -> bool:
        """Whether a step is not run (again). One that was done on another machine is, if a step that is left needs what it made."""
        wanted = step.makes and any(step.makes in other.needs and not self.ended(other) for other in others)
        gone = self.known.get(step.name, {}).get("status") == "done" and not (place.work / step.makes).exists()
        return self.ended(step) and not (wanted and gone)


@dataclass(frozen=True)
class Saver:
    """The archive of all steps that ran on this machine."""

    place: Place
    names: Sequence[str]

    def save(self) -> None:
        """Write the archive anew: each step's folder and its log; what is heavy stays here. A file that vanishes meanwhile is left out."""
        target = self.place.out / ARCHIVE
        draft = target.with_name(f"{ARCHIVE}.draft")
        with tarfile.open(draft, "w:gz", compresslevel=6) as out:
            for size, name, path in sorted(self._light()):
                if out.offset + size > MOST_IN_ALL:
                    break
                with suppress(FileNotFoundError):
                    content = path.read_bytes()
                    info = tarfile.TarInfo(name)
                    info.size, info.mtime = len(content), int(path.stat().st_mtime)
                    out.addfile(info, io.BytesIO(content))
        draft.replace(target)

    def _light(self) -> list[tuple[int, str, Path]]:
        found = []
        for name in self.names:
            folder, log = self.place.folder(name), self.place.log(name)
            for path in (log, *folder.rglob("*")):
                with suppress(FileNotFoundError):
                    size = path.stat().st_size
                    if path.is_file() and not path.is_symlink() and path.suffix not in HEAVY and size <= MOST_BYTES:
                        within = log.name if path == log else str(path.relative_to(folder))
                        found.append((size, f"{name}/{within}", path))
        return found


def execute(step: Step, place: Place, log: IO[bytes], save: Callable[[], None]) -> tuple[str, str]:
    """Run a step's commands one after another within its limit. Returns its status and the reason."""
    deadline = time.monotonic() + step.limit_s * place.patience
    for command in step.commands:
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        environment = {**os.environ, **place.environment, **step.environment}
        process = subprocess.Popen(
            command, cwd=place.folder(step.name), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = wait(process, deadline, save)
        except subprocess.TimeoutExpired:
            end(process)
            return "cut off", f"at its limit of {step.limit_s * place.patience:.0f} s"
        except BaseException:
            end(process)
            raise
        if code not in step.accepted:
            return "failed", f"exit code {code}: {' '.join(command[:4])}"
    return "done", ""


def wait(process: "subprocess.Popen[bytes]", deadline: float, save: Callable[[], None]) -> int:
    """Its exit code; `save` is called meanwhile. TimeoutExpired at the deadline."""
    while True:
        left = max(deadline - time.monotonic(), 0.1)
        try:
            return process.wait(min(left, SAVE_S))
        except subprocess.TimeoutExpired:
            if left <= SAVE_S:
                raise
            save()


def end(process: "subprocess.Popen[bytes]") -> None:
    for how, patience in ((signal.SIGINT, GRACE_S), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, how)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def end_left_over(place: Place) -> int:
    """End what a call that was killed has left running, engines on the GPU above all. run.sh lets no two calls work in one folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == place.environment[MARK]:
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=GRACE_S)
    return len(found)


def perform(step: Step, place: Place, ledger: Ledger, saver: Saver) -> str:
    folder, log = place.folder(step.name), place.log(step.name)
    folder.mkdir(parents=True, exist_ok=True)
    tries = ledger.known.get(step.name, {}).get("tries", 0) + 1
    ledger.note(step.name, status="running", reason="", seconds=0.0, tries=tries)
    began = time.monotonic()
    with log.open("ab") as sink:
        status, reason = execute(step, place, sink, saver.save)
    seconds = round(time.monotonic() - began, 1)
    ledger.note(step.name, status=status, reason=reason, seconds=seconds, limit_s=step.limit_s)
    saver.save()
    tail = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    text = "\n".join([f"== {step.name}: {status}, {seconds} s of {step.limit_s:.0f}{f' ({reason})' if reason else ''}", *tail, ""])
    with (place.out / SUMMARY).open("a") as out:
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
    if count := end_left_over(place):
        print(f"ended {count} processes of a call that was killed", flush=True)
    every = steps(place)
    ledger, saver = Ledger.read([given.work, given.out, given.kit]), Saver(place, [step.name for step in every])
    for name in given.again:
        ledger.known.pop(name, None)
    ledger.known.setdefault("setup", {"status": "done", "reason": "", "seconds": given.setup, "ended": time.time(), "tries": 1})
    deadline = time.monotonic() + given.budget
    left = False
    for step in every:
        if given.only and step.name not in given.only:
            continue
        known, lacking = ledger.known.get(step.name, {}), step.lacking(place)
        if given.list or ledger.finished(step, every, place) or lacking:
            state = known.get("status") or (f"skipped: {lacking}" if lacking else "to do")
            print(f"{step.name:<24} {step.limit_s:5.0f} s  {state}", flush=True)
        elif step.limit_s * place.patience > deadline - time.monotonic():
            left = True
            print(
                f"{step.name:<24} {step.limit_s:5.0f} s  next call: {max(deadline - time.monotonic(), 0):.0f} s are left of this one",
                flush=True,
            )
        else:
            perform(step, place, ledger, saver)
    if left:
        print("not all done: call run.sh again", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
