"""`make contracts`: does each engine's own parser accept what its adapter writes? Installs the parsers, asks them, tables the answers.

An engine is asked through tests/contracts/parsers/<engine>.py, which runs in a throw-away environment made from the REQUIREMENTS
(and NO_DEPS, installed without what they require) that the file itself names. It gets one JSON line a deployment on stdin and answers
with one line {"engine", "version"} and one line {"name", "accepted", "error"?} each. Environments are kept under the user's
engine home and made once per set of requirements.

It does not know what a flag means: an accepted command line is one that parses, not one that performs.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from enginebench.domain import fingerprint
from enginebench.engines.environments import Pins, install
from enginebench.errors import UserError
from enginebench.machine.installs import python_with_pip
from golden import HERE, Built, build, engines, tuned

PAGE = HERE.parents[1] / "docs" / "contracts.md"
TIMEOUT_S = 900.0
TAIL_LINES = 8
_PROSE = (
    "For each engine, its adapter turns the deployments of `tests/contracts/deployments/` into commands, and the argument parser of the "
    "real package is asked about them (`tests/contracts/parsers/`). Where no package can be installed on a machine without a GPU, a pinned "
    "table of its options is asked, as the column says. A command line that is accepted parses; nothing here says how it performs. "
    "Each value that `bench tune` tries is asked about as well. "
    "`WORKERS` is `adapters/workers/`, `/site` a launch's private folder."
)


@dataclass(frozen=True)
class Outcome:
    """What became of one engine's golden deployments. failures: name -> why, '' for the engine as a whole."""

    engine: str
    version: str
    built: Sequence[Built]
    accepted: Sequence[str]
    failures: dict[str, str]
    tried: int = 0
    """Values that `bench tune` would try."""
    taken: int = 0
    """Those of them that the parser accepts."""

    @property
    def refused(self) -> int:
        """Deployments that the adapter refuses and is meant to refuse."""
        return sum(1 for built in self.built if built.refusal is not None and built.wrong is None)

    @property
    def launches(self) -> int:
        """Deployments that are meant to be launched."""
        return len(self.built) - self.refused


class ParserFailed(Exception):  # noqa: N818  # a verdict on an engine, not a mishap of the driver
    """The parser could not be installed, did not answer, or answered what nobody can read."""


def judge(engine: str, parser: Path) -> Outcome:
    """Build every golden deployment of an engine and ask its parser about those that are launched."""
    built = build(engine)
    failures = {each.name: each.wrong for each in built if each.wrong is not None}
    tried = tuned(engine)
    failures |= {each.name: each.wrong for each in tried if each.wrong is not None}
    asked = [each for each in (*built, *tried) if each.launch is not None and each.wrong is None]
    try:
        version, answers = ask(environment(engine, parser), parser, [each.request() for each in asked])
    except ParserFailed as error:
        return Outcome(engine, "-", built, (), failures | {"": str(error)})
    for each in asked:
        answer = answers.get(each.name, {"error": "the parser did not answer"})
        if answer.get("accepted") is not True:
            failures[each.name] = str(answer.get("error", "not accepted"))
    names = {each.name for each in built}
    accepted = [each.name for each in asked if each.name not in failures]
    launched = [name for name in accepted if name in names]
    return Outcome(engine, version, built, launched, failures, len(tried), len(accepted) - len(launched))


def requirements(parser: Path) -> tuple[list[str], list[str]]:
    """REQUIREMENTS and NO_DEPS of a parser file, read without running it: it imports what is not installed yet."""
    found: dict[str, list[str]] = {"REQUIREMENTS": [], "NO_DEPS": []}
    for node in ast.parse(parser.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                if name in found:
                    found[name] = list(ast.literal_eval(value))
    return found["REQUIREMENTS"], found["NO_DEPS"]


def environment(engine: str, parser: Path) -> Path:
    """The interpreter of an environment with what the parser needs. Raises ParserFailed with pip's last lines."""
    with_deps, no_deps = requirements(parser)
    try:
        python = install(f"contract-{engine}-{fingerprint([*no_deps])}", Pins(tuple(with_deps)), say)
    except UserError as error:
        raise ParserFailed(str(error)) from error
    marker = python.parents[1] / "no-deps-complete"
    if no_deps and not marker.exists():
        say(f"{engine}: installing {', '.join(no_deps)} without dependencies")
        pip = [python_with_pip() or sys.executable, "-I", "-m", "pip", "--python", str(python)]
        command = [*pip, "install", "--quiet", "--no-deps", "--", *no_deps]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise ParserFailed(f"pip could not install {', '.join(no_deps)}:\n{_tail(done.stderr)}")
        marker.touch()
    return python


def ask(python: Path, parser: Path, requests: Sequence[dict[str, Any]]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The engine's version and its parser's answers by name. Lines that are not answers (engines print) are left out."""
    with tempfile.TemporaryDirectory() as home:
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "LD_LIBRARY_PATH") if key in os.environ}
        env = {**kept, "HOME": home, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        try:
            done = subprocess.run(
                [str(python), str(parser)], input=lines, cwd=home, env=env, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise ParserFailed(f"its parser did not end within {TIMEOUT_S:g} s") from None
    said = [answer for line in done.stdout.splitlines() if (answer := _object(line))]
    version = next((str(line["version"]) for line in said if "engine" in line and "version" in line), None)
    if version is None or done.returncode:
        raise ParserFailed(f"its parser failed (exit code {done.returncode}):\n{_tail(done.stderr or done.stdout)}")
    return version, {str(line["name"]): line for line in said if "name" in line and "accepted" in line}


def _object(line: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _tail(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-TAIL_LINES:])


def table(outcomes: Sequence[Outcome]) -> str:
    """Engine x version x deployments accepted, in Markdown."""
    rows = [
        f"| {each.engine} | {each.version} | {len(each.accepted)} of {each.launches} | {each.refused} | {each.taken} of {each.tried} | "
        f"{', '.join(name or 'parser' for name in each.failures) or '-'} |"
        for each in outcomes
    ]
    head = "| engine | parser | accepted | refused as expected | values of `bench tune` accepted | failed |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def page(outcomes: Sequence[Outcome]) -> str:
    """docs/contracts.md: the table, then every deployment with the commands it becomes or the reason it is refused."""
    out = [
        "<!-- Generated by `make contracts`; do not edit. -->",
        "# Golden deployments and the engines' own parsers",
        _PROSE,
        table(outcomes).rstrip(),
    ]
    for each in outcomes:
        out.append(f"## {each.engine} ({each.version})")
        commands = "\n\n".join(f"# {built.name}\n{built.command()}" for built in each.built if built.name in each.accepted)
        if commands:
            out.append(f"```text\n{commands}\n```")
        refusals = [f"- `{built.name}` is refused: {built.refusal}" for built in each.built if built.refusal and not built.wrong]
        out += ["\n".join(refusals)] if refusals else []
    return "\n\n".join(out) + "\n"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: everything is as expected. 1: a parser could not be had, or a deployment was judged otherwise than expected."""
    known = engines()
    options = argparse.ArgumentParser(prog="contracts", description="Ask the engines' own parsers about the golden deployments.")
    options.add_argument("--engine", action="append", choices=known, help="only this engine (repeatable); the page is then left as it is")
    asked = options.parse_args(arguments).engine or known
    outcomes = []
    for engine in asked:
        outcome = judge(engine, HERE / "parsers" / f"{engine}.py")
        outcomes.append(outcome)
        for name, reason in outcome.failures.items():
            say(f"{engine}{f' {name}' if name else ''}: {reason}")
    print(table(outcomes), end="")
    if asked == known:
        PAGE.write_text(page(outcomes), encoding="utf-8")
    return int(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
