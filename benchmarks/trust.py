"""Plants faults and counts how often a verdict names them, and how often a clean run is flagged. `make bench-trust`.

    python benchmarks/trust.py [--repeats 20] [--clean 100] [--only WORDS] [--write docs/trust.md]
    python benchmarks/trust.py --short

The short form plants every fault once at full strength; exit code 1 if one is missed twice, or three clean cells are flagged.

A fault counts as found only where a check that names its cause fires (or the sentence that refuses it names it): a cell that is flagged for
another reason is counted apart. Strengths below the full one give the detection curve; nothing is promised for them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from enginebench.runtime import free_port
from trust_faults import FAULTS, Fault
from trust_scene import CLOSED, FAKE, HERE, LONG, OPEN, Scene, Seen, faulty, measured, scenario

ATTACHED = "{engine: openai, model: any, runtime: attach, url: 'http://127.0.0.1:PORT', options: {ignore_eos: true}}"
OFFLINE = "{engine: llamacpp, model: smollm2-135m, precision: q4_1, runtime: in-process}"
LLAMACPP = "{engine: llamacpp, model: smollm2-135m, precision: q4_1}"
OF_THE_MACHINE = {"foreign_load", "cpu_stolen", "cpu_throttled"}
"""Checks that say what is true of the machine on which the benchmark runs: a cell that they flag is not clean."""
BEGIN, END = "<!-- begin: benchmarks/trust.py -->", "<!-- end -->"


def found(fault: Fault, seen: Sequence[Seen]) -> tuple[int, int]:
    """(cells that name the cause, cells that are flagged for another reason only)"""
    right = [any(cause in given for given in each.causes for cause in fault.causes) for each in seen]
    other = [not named and (bool(each.causes) or each.verdict != "valid") for named, each in zip(right, seen, strict=True)]
    return sum(right), sum(other)


@contextlib.contextmanager
def scene(folder: Path, repeats: int) -> Iterator[Scene]:
    """A folder for one strength of one fault; it is removed when its cells have been counted."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        yield Scene(Path(place), repeats)


def planted(faults: Sequence[Fault], repeats: int, short: bool, folder: Path) -> tuple[list[str], list[str]]:
    """(lines of the table, faults that were missed at full strength)"""
    lines, missed = [], []
    for fault in faults:
        rates = []
        for strength, words in enumerate(fault.strengths):
            full = strength == len(fault.strengths) - 1
            if short and not full:
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
            if full and right < len(seen):
                missed.append(f"{fault.name} ({rates[-1]})")
        checks = " or ".join(f"`{cause.strip(': ')}`" for cause in fault.causes)
        lines.append(f"| {fault.name} | {checks} | {' · '.join(rates)} |")
    return lines, missed


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
    port = free_port()
    with subprocess.Popen([sys.executable, HERE / "faulty_server.py", "--port", str(port)], stdout=subprocess.DEVNULL) as server:
        lines, cells, flagged = [], 0, 0
        kinds = sound(port)
        for words, (deployment, load) in kinds.items():
            with scene(folder, -(-count // len(kinds))) as place:
                seen = measured(place, scenario(deployment, load, place.repeats))
            quiet = [cell for cell in seen if not cell.causes & OF_THE_MACHINE]
            bad = [cell for cell in quiet if cell.verdict != "valid"]
            cells, flagged = cells + len(quiet), flagged + len(bad)
            lines.append(f"| {words} | {len(quiet)} | {len(bad)} |")
            print(lines[-1], dict(Counter(cause[:200] for cell in bad for cause in cell.causes)), flush=True)
        server.kill()
    return lines, cells, flagged


def write(path: Path, text: str) -> None:
    """Put the tables between the two marks of a page."""
    page = path.read_text()
    head, _, rest = page.partition(BEGIN)
    path.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="cells per fault and strength")
    parser.add_argument("--clean", type=int, default=100, help="clean cells")
    parser.add_argument("--only", default="", help="only faults whose name contains this")
    parser.add_argument("--short", action="store_true", help="every fault once at full strength")
    parser.add_argument("--write", type=Path, help="the page to write the tables into")
    given = parser.parse_args()
    repeats, count = (1, 9) if given.short else (given.repeats, given.clean)
    faults = [fault for fault in FAULTS if given.only in fault.name]
    with tempfile.TemporaryDirectory(prefix="trust-") as folder:
        lines, missed = planted(faults, repeats, given.short, Path(folder))
        clean_lines, cells, flagged = clean(count, Path(folder)) if not given.only or given.only == "clean" else ([], 0, 0)
    table = "\n".join(["| fault | check that names it | found at each strength |", "|---|---|---|", *lines])
    table += (
        "\n\n" + "\n".join(["| clean run | cells | flagged |", "|---|---|---|", *clean_lines]) + f"\n| **all** | {cells} | {flagged} |\n"
    )
    print(f"\n{table}\nmissed at full strength: {json.dumps(missed)}\nclean cells flagged: {flagged} of {cells}")
    if given.write:
        write(given.write, table)
    return int(given.short and (bool(missed) or flagged > 2))


if __name__ == "__main__":
    sys.exit(main())
