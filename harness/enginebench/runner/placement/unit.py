"""The command that measures a unit into a folder, wherever that is:

    python -m enginebench.runner.placement.unit UNIT.json --into FOLDER [--node NAME] [--cores N] [--meet HOST] [--while-stdin]

FOLDER gets `node.json` (its name), a run folder like that of any run, and at last `ended.json` with what kept it
from measuring, if anything did. Records are on disk as cells end, and the same command on the same folder resumes. Needs enginebench,
the engine and the weights here; everything else is in the unit. If its engine spans several nodes, FOLDER gets `meeting.json`, and
the others come through `rank`. Exit codes: 0 measured, 2 could not, 3 cells failed, 75 lost another node, 130 ended early.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.errors import Exit, UserError
from enginebench.records.files import write_atomically
from enginebench.records.run_folder import Run
from enginebench.runner.placement.unit_data import ENDED, INPUTS, MEETING, NODE, Unit, read_unit, unpack

if TYPE_CHECKING:
    from enginebench.runtime.nodes import Followers


NODE_LOST = 75
"""Exit code: another node of the engine was lost; the unit can be tried again with others."""


def measure(unit: Unit, into: Path, others: Followers | None = None) -> Run:
    """Measure a unit into a run folder below `into`, or go on with the one that is there. Errors as of `run_plan`.

    others: the other nodes of its engine.
    """
    from enginebench.runner.placement.unit_plan import plan_of
    from enginebench.runner.session import run_plan

    return run_plan(
        plan_of(unit, into / INPUTS), into, client_processes=unit.client_processes, wait_quiet_s=unit.wait_quiet_s,
        share_machine=unit.share_machine or not unit.exclusive, on_event=_print_notes, others=others, reported=False,
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
    parser.add_argument("--meet", default="", metavar="HOST", help="address to wait at for the other nodes of the engine; default: all")
    parser.add_argument("--while-stdin", action="store_true", help="end, with the engine, when stdin is closed")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job may be started with it ignored
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # the event loop handles this one
    if given.while_stdin:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    lost: list[str] = []
    try:
        code, problem, skipped = _measured(given, lost)
    except KeyboardInterrupt:
        if lost:
            print(f"error: lost node {lost[0]}", file=sys.stderr)  # noqa: T201
        return NODE_LOST if lost else Exit.INTERRUPTED
    write_atomically(given.into / ENDED, json.dumps({"problem": problem, "skipped": skipped}))
    if problem:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
    return code


def _measured(given: argparse.Namespace, lost: list[str]) -> tuple[int, str, bool]:
    """Exit code, what kept it from measuring, and whether that is something that this machine lacks. lost: gets the name of a lost node."""
    from enginebench.runner.placement.core_set import core_set
    from enginebench.runner.preflight import CannotRun

    given.into.mkdir(parents=True, exist_ok=True)
    try:
        unit = read_unit(given.unit)
        with core_set(given.cores):
            write_atomically(given.into / NODE, json.dumps({"name": given.node}))
            unpack(unit, given.into / INPUTS)
            with _other_nodes(unit, given, lost) as others:
                run = measure(unit, given.into, others)
    except CannotRun as error:
        return Exit.USAGE, "; ".join(str(error).split("\n")), True
    except UserError as error:
        return Exit.USAGE, "; ".join(line.strip() for line in str(error).splitlines()), False
    return (Exit.OK if all(cell.status == "ok" for cell in run.cells()) else Exit.CELLS_FAILED), "", False


@contextlib.contextmanager
def _other_nodes(unit: Unit, given: argparse.Namespace, lost: list[str]) -> Iterator[Followers | None]:
    """The other nodes of the unit's engine; None if it has none. When one is lost, this process ends as by Ctrl-C."""
    if unit.deployment.nodes == 1:
        yield None
        return
    from enginebench.runtime.nodes import Follower, Followers, NodeMissing

    def end(node: Follower) -> None:
        lost.append(node.name)
        os.kill(os.getpid(), signal.SIGINT)

    with Followers(unit.deployment.nodes - 1, end, given.meet) as others:
        file, part = given.into / MEETING, given.into / f"{MEETING}.part"
        part.touch(mode=0o600)  # it has the key
        part.write_text(json.dumps(others.meeting))
        part.rename(file)
        try:
            others.gather()
        except NodeMissing as error:
            raise UserError(str(error)) from None
        finally:
            file.unlink(missing_ok=True)
        yield others


def end_with_stdin() -> None:
    """Wait until stdin is closed, and end as by Ctrl-C."""
    while os.read(0, 1 << 16):  # not through sys.stdin, whose lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
