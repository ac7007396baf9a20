"""Loads each folder as `aiperf plot` does, validates the summary, computes its statistics again from the records, and draws."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

sys.path = [each for each in sys.path if each != str(Path(__file__).parent)]  # this file has the name of the package

import numpy as np
from aiperf.common.models.export_models import JsonMetricResult
from aiperf.plot.core.data_loader import DataLoader

FORMAT = "aiperf"
REQUIREMENTS = ["aiperf==0.13.0"]
VERSION = f"aiperf {version('aiperf')}"


def main() -> None:
    folder, loader = Path(sys.argv[1]), DataLoader()
    runs = sorted(each for each in folder.iterdir() if each.is_dir())
    compared, differences = 0, []
    for each in runs:
        run = loader.load_run(each)
        for tag, stated in run.aggregated.items():
            if not (isinstance(stated, dict) and "unit" in stated):
                continue
            result = JsonMetricResult.model_validate(stated)
            values = run.requests[tag].dropna() if tag in run.requests else []
            if result.count is None or not len(values):
                continue
            for name, theirs in {
                "avg": np.mean(values),
                "std": np.std(values),
                **{f"p{q}": np.percentile(values, q) for q in (1, 50, 90, 99)},
            }.items():
                compared += 1
                if not np.isclose(getattr(result, name), theirs, rtol=1e-9):
                    differences.append(f"{each.name} {tag} {name}: exported {getattr(result, name)!r}, of its records {theirs!r}")
    print(
        json.dumps(
            {
                "check": "DataLoader.load_run, JsonMetricResult",
                "version": VERSION,
                "read": len(runs),
                "compared": compared,
                "differences": differences,
            }
        )
    )
    plots = folder / "plots"
    done = subprocess.run(
        [Path(sys.executable).parent / "aiperf", "plot", folder, "--output", plots], capture_output=True, text=True, timeout=600
    )
    drawn = len(list(plots.glob("*.png")))
    wrong = [] if drawn else ["it drew nothing: " + " ".join(done.stdout.split()[-30:])]
    print(json.dumps({"check": "aiperf plot (PNG files)", "version": VERSION, "read": drawn, "compared": 0, "differences": wrong}))


main()
