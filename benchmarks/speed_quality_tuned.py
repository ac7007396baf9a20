"""One page with speed, quality and tuned rows, from a quiet machine: `python benchmarks/speed_quality_tuned.py [--publish]`.

Makes SmolLM2 in four precisions, tunes the first deployment of each engine (--budget each), and measures every deployment of
speed_quality_tuned.yaml with the tuned servers beside them. About ten minutes on two cores. --publish puts the run into results/published
and its page into reports/published. The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import enginebench as eb
from publish import ROOT, publish
from smollm2 import make_smollm2

FOLDER = ROOT / "results" / "smollm2"
SCENARIO = Path(__file__).with_suffix(".yaml")
TUNED = ("transformers f32", "llama.cpp q8_0")
"""Labels of what is tuned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=90.0, metavar="S", help="engine time of the tuning of a deployment")
    parser.add_argument("--repeats", type=int, help="other than those of the scenario, for a rehearsal")
    parser.add_argument("--share-machine", action="store_true")
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    results = FOLDER / "runs"
    if not (FOLDER / "smollm2" / "hf" / "tokenizer_config.json").exists():
        make_smollm2(FOLDER / "smollm2")
    shutil.copy(SCENARIO, FOLDER / SCENARIO.name)
    plan = eb.plan(FOLDER / SCENARIO.name)
    chosen = replace(plan, cells=tuple(cell for cell in plan.cells if cell.deployment.label in TUNED))
    tuning = eb.tune(chosen, budget_s=given.budget, results=results, share_machine=given.share_machine, on_event=_say)
    print(tuning.report("tuning"))
    both = FOLDER / "tuned.yaml"
    both.write_text(eb.tuned_scenario(tuning), encoding="utf-8")
    run = eb.run(eb.plan(both, repeats=given.repeats), results=results, share_machine=given.share_machine, on_event=_say)
    print(run.report("summary"))
    if given.publish:
        target = publish(run.path)
        page = ROOT / "reports" / "published" / f"{target.name}.html"
        page.write_text(eb.open_run(target).report("html"), encoding="utf-8")
        print(f"{target}\n{page}")


def _say(event: eb.Event) -> None:
    if isinstance(event, eb.Note | eb.CellsAdded):
        print(event, file=sys.stderr)


if __name__ == "__main__":
    main()
