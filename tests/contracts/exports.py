"""`python tests/contracts/exports.py`: are exports read by the real tools, and do their own definitions give the same numbers?

Exports a run in each format, and runs tests/contracts/readers/<tool>.py in an environment of that tool: one found under --tools, else one
made from the REQUIREMENTS that the reader names. A reader gets the folder of the export (and a checkout of the tool's source, where the
tool is not packaged) and prints one JSON line per check: {"check", "version", "read", "compared", "differences"}.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import enginebench
from enginebench.engines.environments import Pins, install
from enginebench.errors import UserError
from enginebench.machine.folders import checkout

ROOT = checkout() or Path()
READERS = Path(__file__).parent / "readers"
PAGE = ROOT / "docs" / "export-readers.md"
RUN = ROOT / "results" / "published" / "2026-11-30-cpu_all_engines"
TIMEOUT_S = 900.0
_HEAD = """<!-- Written by tests/contracts/exports.py --write; run it again instead of editing. -->

# Exports, read by the tools themselves

tests/contracts/exports.py exports a stored run in the format of each tool, and has the tool's own code read it. *Compared* counts the
numbers that the tool's code computed again from the exported requests by its own definitions, or that it validated.

| format | check | tool | read | compared | differ |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Check:
    """What a reader found."""

    form: str
    name: str
    version: str
    read: int
    compared: int
    differences: tuple[str, ...]


def constant(reader: Path, name: str) -> Any:
    """A constant of a reader, which is not imported here: it needs the tool."""
    for node in ast.parse(reader.read_text()).body:
        match node:
            case ast.Assign([ast.Name(found)], value) | ast.AnnAssign(ast.Name(found), _, value) if found == name and value is not None:
                return ast.literal_eval(value)
    return None


def python_for(reader: Path, tools: Path | None) -> Path:
    """The interpreter of the tool's environment."""
    if tools is not None and (found := tools / reader.stem / "bin" / "python").exists():
        return found
    requirements = constant(reader, "REQUIREMENTS")
    if not requirements:  # it needs nothing but its own source
        return Path(sys.executable)
    return install(f"reader-{reader.stem}", Pins(tuple(requirements)), print)


def check(reader: Path, export: Path, arguments: argparse.Namespace) -> list[Check]:
    """Everything that one reader checks."""
    form = constant(reader, "FORMAT")
    python = python_for(reader, arguments.tools)
    sources = dict(each.split("=", 1) for each in arguments.source)
    source = sources.get(form, "")
    if constant(reader, "NEEDS_SOURCE") and not source:
        return [Check(form, f"needs --source {form}=CHECKOUT", "-", 0, 0, ("not run",))]
    done = subprocess.run([python, reader, export, source], capture_output=True, text=True, timeout=TIMEOUT_S)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    if done.returncode or not lines:
        return [Check(form, "could not be run", "-", 0, 0, ("; ".join(done.stderr.strip().splitlines()[-3:]),))]
    return [Check(form, its["check"], its["version"], its["read"], its["compared"], tuple(its["differences"])) for its in lines]


def main() -> int:
    """Check every format, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", help="only these")
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--tools", type=Path, help="folder of environments: TOOLS/<reader>/bin/python")
    parser.add_argument("--source", action="append", default=[], metavar="FORMAT=CHECKOUT", help="source of a tool that is not packaged")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    found: list[Check] = []
    for reader in sorted(READERS.glob("*.py")):
        form = constant(reader, "FORMAT")
        if form is None or (arguments.formats and form not in arguments.formats):
            continue
        with tempfile.TemporaryDirectory() as folder:
            export = Path(folder) / form
            export.mkdir()
            enginebench.export(arguments.run, form).write(export)
            try:
                found += check(reader, export, arguments)
            except (UserError, subprocess.TimeoutExpired) as error:
                found.append(Check(form, "could not be run", "-", 0, 0, (str(error),)))
    lines = [f"| {c.form} | {c.name} | {c.version} | {c.read} | {c.compared:,} | {len(c.differences)} |" for c in found]
    for c in found:
        print(f"{c.form}: {c.name} ({c.version}): {c.read} read, {c.compared:,} numbers compared, {len(c.differences)} differ")
        for each in c.differences[:5]:
            print(f"  {each}")
    if arguments.write:
        PAGE.write_text(_HEAD + "\n".join(lines) + f"\n\nThe run: {arguments.run.name}.\n")
    return int(any(c.differences for c in found))


if __name__ == "__main__":
    sys.exit(main())
