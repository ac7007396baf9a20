"""Plants faults and counts how often a verdict names them, and how often a clean run is flagged. `make bench-trust`.

    python benchmarks/trust.py [--repeats 20] [--clean 100] [--only WORDS ...] [--write docs/trust.md]
    python benchmarks/trust.py --short

The short form plants every fault once at full strength; exit code 1 if one is missed twice, or three clean cells are flagged.

A fault counts as found only where a check that names its cause fires (or the sentence that refuses it names it): a cell that is flagged for
another reason is counted apart. Strengths below the full one give the detection curve; nothing is promised for them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from trust_faults import FAULTS, Fault
from trust_scene import ATTACHED, CLOSED, FAKE, LONG, OPEN, Scene, Seen, faulty, measured, running_server, scenario

OFFLINE = "{engine: llamacpp, model: smollm2-135m, precision: q4_1, runtime: in-process}"
LLAMACPP = "{engine: llamacpp, model: smollm2-135m, precision: q4_1}"
OF_THE_MACHINE = {"foreign_load", "cpu_stolen", "cpu_throttled"}
"""Checks that say what is true of the machine on which the benchmark runs: a cell that they flag is not clean."""
FAULT_HEAD = "| fault | check that names it | found at each strength |\n|---|---|---|"
CLEAN_HEAD = "| clean run | cells | flagged |\n|---|---|---|"
BEGIN, END = "<!-- begin: benchmarks/trust.py -->", "<!-- end -->"


def found(fault: Fault, seen: Sequence[Seen]) -> tuple[int, int]:
    """(cells that name the cause, cells that are flagged only for another reason than the machine on which the benchmark runs)"""
    right = [any(cause in given for given in each.causes for cause in fault.causes) for each in seen]
    other = [not named and bool(each.causes - OF_THE_MACHINE) for named, each in zip(right, seen, strict=True)]
    return sum(right), sum(other)


@contextlib.contextmanager
def scene(folder: Path, repeats: int) -> Iterator[Scene]:
    """A folder for one strength of one fault; it is removed when its cells have been counted."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        yield Scene(Path(place), repeats)


def planted(fault: Fault, repeats: int, short: bool, folder: Path, *, full_only: bool = False) -> tuple[str, bool]:
    """(line of the table, whether it was missed at full strength)"""
    rates, missed = [], False
    for strength, words in enumerate(fault.strengths):
        full = strength == len(fault.strengths) - 1
        if (short or full_only) and not full:
            continue
        for _ in range(2 if short else 1):  # what else runs on this machine may hide a fault once
            with scene(folder, repeats) as place:
                seen = fault.run(place, strength)
            if found(fault, seen)[0] == len(seen):
                break
        right, other = found(fault, seen)
        rates.append(f"{words}: {right}/{len(seen)}" + (f" (+{other} for another reason)" if other else ""))
        causes = Counter(cause[:160].replace("\n", " ") for each in seen for cause in each.causes)
        print(f"{fault.name} | {rates[-1]} | {dict(causes)}", flush=True)
        missed = full and right < len(seen)
    checks = " or ".join(f"`{cause.strip(': ')}`" for cause in fault.causes)
    return f"| {fault.name} | {checks} | {' · '.join(rates)} |", missed


def sound(port: int) -> dict[str, tuple[str, str]]:
    """Deployments with a load, without a fault; on this port a sound server listens."""
    loads = {"closed loop": CLOSED, "closed loop for 6 s": LONG, "open loop": OPEN}
    engines = {"fake engine": FAKE, "faulty server without a fault": faulty(), "the same, attached": ATTACHED.replace("PORT", str(port))}
    llamacpp = {
        "closed loop": "{concurrency: 2, input_tokens: 64, output_tokens: 32, requests: 40}",
        "open loop": "{rate: 2, input_tokens: 32, output_tokens: 16, requests: 24}",
        "one stream": "{concurrency: 1, input_tokens: 128, output_tokens: 64, requests: 16}",
    }
    return {
        **{f"{engine}, {words}": (deployment, load) for engine, deployment in engines.items() for words, load in loads.items()},
        **{f"llama.cpp, {words}": (LLAMACPP, load) for words, load in llamacpp.items()},
        "llama.cpp, offline batch": (OFFLINE, "{concurrency: 4, input_tokens: 64, output_tokens: 32, requests: 16}"),
    }


def clean(count: int, folder: Path) -> tuple[list[str], int, int]:
    """(lines of the table, clean cells, clean cells that were flagged)"""
    lines, cells, flagged = [], 0, 0
    with running_server({}) as port:
        kinds = sound(port)
        for words, (deployment, load) in kinds.items():
            with scene(folder, -(-count // len(kinds))) as place:
                seen = measured(place, scenario(deployment, load, place.repeats))
            quiet = [cell for cell in seen if not cell.causes & OF_THE_MACHINE]
            bad = [cell for cell in quiet if cell.verdict != "valid"]
            cells, flagged = cells + len(quiet), flagged + len(bad)
            lines.append(f"| {words} | {len(quiet)} | {len(bad)} |")
            print(lines[-1], dict(Counter(cause[:200] for cell in bad for cause in cell.causes)), flush=True)
    return [*lines, f"| **all** | {cells} | {flagged} |"], cells, flagged


def write(path: Path, lines: Sequence[str]) -> None:
    """Replace lines of the tables between the two marks of a page by their first column, so that a part can be measured again."""
    page = path.read_text()
    head, _, rest = page.partition(BEGIN)
    old, _, tail = rest.partition(END)
    known = {line.split("|")[1].strip(): line for line in [*old.splitlines(), *lines] if line.startswith("| ")}
    faults = [known.pop(fault.name, None) for fault in FAULTS]
    clean_runs = [line for name, line in known.items() if name in sound(0) or name == "**all**"]
    tables = [FAULT_HEAD, *filter(None, faults), "", CLEAN_HEAD, *clean_runs]
    path.write_text("\n".join([f"{head}{BEGIN}\n", *tables, f"\n{END}{tail}"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="cells per fault and strength")
    parser.add_argument("--clean", type=int, default=100, help="clean cells")
    parser.add_argument("--only", action="append", help="only faults whose name contains this, or 'clean' (repeatable)")
    parser.add_argument("--full", action="store_true", help="only at full strength")
    parser.add_argument("--short", action="store_true", help="every fault once at full strength")
    parser.add_argument("--write", type=Path, help="the page to write the tables into, line by line")
    given = parser.parse_args()
    repeats, count = (1, 9) if given.short else (given.repeats, given.clean)
    faults = [fault for fault in FAULTS if not given.only or any(word in fault.name for word in given.only)]
    table, missed, cells, flagged = [FAULT_HEAD], [], 0, 0
    with tempfile.TemporaryDirectory(prefix="trust-") as folder:
        for fault in faults:
            line, lost = planted(fault, repeats, given.short, Path(folder), full_only=given.full)
            table.append(line)
            missed += [fault.name] * lost
            if given.write:
                write(given.write, [line])
        if not given.only or "clean" in given.only:
            lines, cells, flagged = clean(count, Path(folder))
            table += ["", CLEAN_HEAD, *lines]
            if given.write:
                write(given.write, lines)
    print(
        "\n".join(["", *table, "", f"missed at full strength: {', '.join(missed) or 'none'}", f"clean cells flagged: {flagged} of {cells}"])
    )
    return int(given.short and (bool(missed) or flagged > 2))


if __name__ == "__main__":
    sys.exit(main())
