"""Validates each report with llm-d-benchmark's own classes, and against the JSON schema that it publishes."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema

FORMAT = "llm-d"
NEEDS_SOURCE = True
REQUIREMENTS = ["pydantic>=2", "pyyaml", "jsonschema", "numpy", "pandas"]


def leaves(data):
    return sum(map(leaves, data.values() if isinstance(data, dict) else data)) if isinstance(data, dict | list) else 1


def main() -> None:
    source = Path(sys.argv[2])
    sys.path.insert(0, str(source / "llmdbenchmark" / "analysis"))
    from benchmark_report.schema_v0_2 import BenchmarkReportV02

    commit = subprocess.run(["git", "-C", source, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    schema = json.loads((source / "llmdbenchmark/analysis/benchmark_report/br_v0_2_json_schema.json").read_text())
    for name, validate in {
        "BenchmarkReportV02": BenchmarkReportV02.model_validate,
        "br_v0_2_json_schema.json": lambda data: jsonschema.validate(data, schema),
    }.items():
        files, compared, differences = sorted(Path(sys.argv[1]).glob("*.json")), 0, []
        for file in files:
            data = json.loads(file.read_text())
            compared += leaves(data)
            try:
                validate(data)
            except ValueError as error:
                differences.append(f"{file.name}: {error}")
            except jsonschema.ValidationError as error:
                differences.append(f"{file.name}: {error.message}")
        print(
            json.dumps(
                {
                    "check": name,
                    "version": f"llm-d-benchmark {commit}",
                    "read": len(files),
                    "compared": compared,
                    "differences": differences,
                }
            )
        )


main()
