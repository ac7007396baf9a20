"""Loads benchmarks.json with GuideLLM's own loader, and has its own code compute the metrics again from the requests."""

import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

sys.path = [each for each in sys.path if each != str(Path(__file__).parent)]  # this file has the name of the package

from guidellm.benchmark.schemas import GenerativeBenchmarksReport
from guidellm.benchmark.schemas.metrics import GenerativeMetrics

FORMAT = "guidellm"
REQUIREMENTS = ["guidellm==0.8.1"]
APART = 1e-6


def bucket(requests):
    def within(start, end, start_func=None, end_func=None):
        return list(requests)

    return SimpleNamespace(get_within_range=within)


def numbers(data, at=""):
    """Path -> number of everything in plain data."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from numbers(value, f"{at}.{key}")
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield at, float(data)


def requests(file, report):
    """(compared, differences) of what is stated of each request and what GuideLLM computes of its times and counts."""
    compared, differences = 0, []
    for raw, benchmark in zip(json.loads(file.read_text())["benchmarks"], report.benchmarks, strict=True):
        for state in ("successful", "errored"):
            for stated, loaded in zip(raw["requests"][state], getattr(benchmark.requests, state), strict=True):
                for name, theirs in loaded.model_dump().items():
                    if name in stated and (theirs is None or isinstance(theirs, int | float)):
                        compared += 1
                        same = stated[name] == theirs or (
                            None not in (stated[name], theirs) and math.isclose(stated[name], theirs, rel_tol=APART)
                        )
                        if not same:
                            differences.append(f"{loaded.request_id} {name}: exported {stated[name]!r}, computed by GuideLLM {theirs!r}")
    return compared, differences


def main() -> None:
    file = Path(sys.argv[1]) / "benchmarks.json"
    report = GenerativeBenchmarksReport.load_file(file)
    compared, differences = requests(file, report)
    for benchmark in report.benchmarks:
        timings = SimpleNamespace(finalized_measure_start=benchmark.start_time, finalized_measure_end=benchmark.end_time)
        done = benchmark.requests
        accumulator = SimpleNamespace(
            timings=timings,
            config=benchmark.config,
            completed=bucket(done.successful),
            incomplete=bucket(done.incomplete),
            errored=bucket(done.errored),
        )
        stated = dict(numbers(benchmark.metrics.model_dump()))
        for path, theirs in numbers(GenerativeMetrics.compile(accumulator).model_dump()):
            if path not in stated or ".mode" in path:
                continue
            compared += 1
            if not math.isclose(stated[path], theirs, rel_tol=APART, abs_tol=APART):
                differences.append(f"{benchmark.config.id_}{path}: exported {stated[path]!r}, computed by GuideLLM {theirs!r}")
    print(
        json.dumps(
            {
                "check": "load_file, GenerativeMetrics.compile",
                "version": f"guidellm {version('guidellm')}",
                "read": len(report.benchmarks),
                "compared": compared,
                "differences": differences,
            }
        )
    )


main()
