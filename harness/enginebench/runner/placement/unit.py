"""The command that measures a unit into a folder, wherever that is:

    python -m enginebench.runner.placement.unit UNIT.json --into FOLDER [--node NAME] [--cores N] [--while-stdin]

FOLDER gets `node.json` (its name), a run folder like that of any run, and at last `ended.json` with what kept it
from measuring, if anything did. Records are on disk as cells end, and the same command on the same folder resumes. Needs enginebench,
the engine and the weights here; everything else is in the unit. Exit codes: 0 measured, 2 could not, 3 cells failed, 130 ended early.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from enginebench.errors import Exit, UserError
from enginebench.records.files import write_atomically
from enginebench.records.run_folder import Run
from enginebench.runner.placement.unit_data import ENDED, INPUTS, NODE, Unit, read_unit, unpack


def measure(unit: Unit, into: Path) -> Run:
    """Measure a unit into a run folder below `into`, or go on with the one that is there. Errors as of `run_plan`."""
    from enginebench.runner.placement.unit_plan import plan_of
    from enginebench.runner.session import run_plan

    return run_plan(
        plan_of(unit, into / INPUTS), into, client_processes=unit.client_processes, wait_quiet_s=unit.wait_quiet_s,
        share_machine=unit.share_machine or not unit.exclusive, on_event=_print_notes,
    )  # fmt: skip


def _print_notes(event: object) -> None:
    from enginebench.runner.events import Note

    if isinstance(event, Note):
        print(event.text, file=sys.stderr)  # noqa: T201  # the log of the job


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m enginebench.runner.placement.unit", description="Measure one unit into a folder.")
    parser.add_argument("unit", type=Path, metavar="UNIT.json")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--node", default="", metavar="NAME", help="name of this machine in the results")
    parser.add_argument("--cores", type=int, default=0, metavar="N", help="use N cores that no other unit on this machine uses")
    parser.add_argument("--while-stdin", action="store_true", help="end, with the engine, when stdin is closed")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job may be started with it ignored
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # the event loop handles this one
    if given.while_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        code, problem, skipped = _measured(given)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    write_atomically(given.into / ENDED, json.dumps({"problem": problem, "skipped": skipped}))
    if problem:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
    return code


def _measured(given: argparse.Namespace) -> tuple[int, str, bool]:
    """Exit code, what kept it from measuring, and whether that is something that this machine lacks."""
    from enginebench.runner.placement.core_set import core_set
    from enginebench.runner.preflight import CannotRun

    given.into.mkdir(parents=True, exist_ok=True)
    try:
        unit = read_unit(given.unit)
        with core_set(given.cores):
            write_atomically(given.into / NODE, json.dumps({"name": given.node}))
            unpack(unit, given.into / INPUTS)
            run = measure(unit, given.into)
    except CannotRun as error:
        return Exit.USAGE, "; ".join(str(error).split("\n")), True
    except UserError as error:
        return Exit.USAGE, "; ".join(line.strip() for line in str(error).splitlines()), False
    return (Exit.OK if all(cell.status == "ok" for cell in run.cells()) else Exit.CELLS_FAILED), "", False


def _end_with_stdin() -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
