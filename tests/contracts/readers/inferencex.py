"""Runs InferenceX's own utils/process_result.py on the exported vLLM results, and compares its rows with the exported ones."""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FORMAT = "inferencex"
NEEDS_SOURCE = True
REQUIREMENTS: list[str] = []
NOT_NUMBERS = ("hw", "image", "model", "infmax_model_prefix", "framework", "precision", "spec_decoding", "recipe_fingerprint")


def main() -> None:
    source, folder = Path(sys.argv[2]), Path(sys.argv[1])
    commit = subprocess.run(["git", "-C", source, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    rows = json.loads((folder / "agg_bmk.json").read_text())
    compared, differences = 0, []
    with tempfile.TemporaryDirectory() as temporary:
        for row in rows:
            # process_result reads a result of vLLM's client; a row is one less its lists, in seconds
            keys = [
                key
                for key in row
                if key.rpartition("_")[2] in ("ttft", "tpot", "itl", "e2el") and not (key.startswith("std") and "tpot" in key)
            ]
            gpus = row["tp"] * row["pp"]
            result = {f"{key}_ms": row[key] * 1000 for key in keys}
            result |= {"max_concurrency": row["conc"], "model_id": row["model"], "total_token_throughput": row["tput_per_gpu"] * gpus}
            result |= {"output_throughput": row["output_tput_per_gpu"] * gpus}
            Path(temporary, "x.json").write_text(json.dumps(result))
            env = {
                "RUNNER_TYPE": row["hw"],
                "FRAMEWORK": row["framework"],
                "PRECISION": row["precision"],
                "SPEC_DECODING": row["spec_decoding"],
            }
            env |= {
                "RESULT_FILENAME": "x",
                "ISL": str(row["isl"]),
                "OSL": str(row["osl"]),
                "DISAGG": "false",
                "MODEL_PREFIX": row["infmax_model_prefix"],
            }
            env |= {
                "IMAGE": row["image"],
                "TP": str(row["tp"]),
                "EP_SIZE": str(row["ep"]),
                "DP_ATTENTION": row["dp_attention"],
                "PP_SIZE": str(row["pp"]),
            }
            env |= {"RECIPE_FINGERPRINT": row["recipe_fingerprint"]}
            done = subprocess.run(
                [sys.executable, source / "utils" / "process_result.py"],
                cwd=temporary,
                env={**os.environ, **env},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                differences.append(f"{row['recipe_fingerprint']}: {done.stderr.strip().splitlines()[-1]}")
                continue
            for key, theirs in json.loads(Path(temporary, "agg_x.json").read_text()).items():
                if key.startswith("power"):
                    continue
                compared += 1
                ours = row.get(key)
                same = math.isclose(ours, theirs, rel_tol=1e-9) if isinstance(ours, float) and isinstance(theirs, float) else ours == theirs
                if not same:
                    differences.append(f"{row['recipe_fingerprint']} {key}: exported {ours!r}, by InferenceX {theirs!r}")
    print(
        json.dumps(
            {
                "check": "utils/process_result.py",
                "version": f"InferenceX {commit}",
                "read": len(rows),
                "compared": compared,
                "differences": differences,
            }
        )
    )


main()
