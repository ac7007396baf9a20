"""Gives the exported requests to vLLM's own calculate_metrics, writes its .pytorch.json, and draws its timeline and sweep plots."""

import argparse
import contextlib
import io
import json
import math
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

sys.path = [each for each in sys.path if each != str(Path(__file__).parent)]  # this file has the name of the package
os.environ["SAVE_TO_PYTORCH_BENCHMARK_FORMAT"] = "1"

from vllm.benchmarks import serve
from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput

FORMAT = "vllm"
REQUIREMENTS = ["vllm", "pandas", "seaborn", "matplotlib", "plotly"]
VERSION = f"vllm {version('vllm')}"
NAMES = {
    "completed": "completed", "failed": "failed", "total_input_tokens": "total_input", "total_output_tokens": "total_output",
    **{name: name for name in ("request_throughput", "output_throughput", "total_token_throughput", "max_concurrent_requests")},
    **{f"{kind}_{name}_ms": f"{kind}_{name}_ms" for kind in ("mean", "median", "std") for name in ("ttft", "tpot", "itl", "e2el")},
}  # fmt: skip


def outputs(result):
    lists = zip(
        result["start_times"],
        result["ttfts"],
        result["itls"],
        result["latencies"],
        result["input_lens"],
        result["output_lens"],
        result["errors"],
        strict=True,
    )
    for start, ttft, itl, latency, entered, made, error in lists:
        its = RequestFuncOutput(success=not error, error=error)
        its.start_time, its.ttft, its.itl, its.latency, its.prompt_len, its.output_tokens = start, ttft, itl, latency, entered, made
        yield its


def differences(result):
    """(compared, differences) of a result and what vLLM makes of its requests."""
    with contextlib.redirect_stdout(io.StringIO()):
        found, _ = serve.calculate_metrics([], list(outputs(result)), result["duration"], None, [50, 90, 95, 99], {})
    theirs = {name: getattr(found, attribute) for name, attribute in NAMES.items()}
    for name in ("ttft", "tpot", "itl", "e2el"):
        theirs |= {f"p{q}_{name}_ms": value for q, value in getattr(found, f"percentiles_{name}_ms")}
    shared = [name for name in theirs if name in result]
    wrong = [name for name in shared if not math.isclose(theirs[name], result[name], rel_tol=1e-9, abs_tol=1e-9)]
    return len(shared), [
        f"{result['enginebench_cell']} {name}: exported {result[name]!r}, computed by vLLM {theirs[name]!r}" for name in wrong
    ]


def say(check, read, compared, wrong):
    print(json.dumps({"check": check, "version": VERSION, "read": read, "compared": compared, "differences": wrong}))


def main() -> None:
    folder = Path(sys.argv[1])
    files = [each for each in sorted(folder.glob("*.json")) if not each.name.endswith((".pytorch.json", "summary.json"))]
    results = {each: json.loads(each.read_text()) for each in files}
    detailed = {each: result for each, result in results.items() if "ttfts" in result and "output_lens" in result}
    found = [differences(result) for result in detailed.values()]
    say("serve.calculate_metrics", len(detailed), sum(n for n, _ in found), [each for _, wrong in found for each in wrong])

    compared, wrong = 0, []
    with tempfile.TemporaryDirectory() as temporary:
        for file, result in detailed.items():
            serve.save_to_pytorch_benchmark_format(
                argparse.Namespace(model=result["model_id"], backend=result["backend"]), result, f"{temporary}/{file.name}"
            )
            theirs = json.loads(Path(temporary, file.name.replace(".json", ".pytorch.json")).read_text())
            ours = json.loads(file.with_suffix(".pytorch.json").read_text())
            compared += len(theirs)
            if [each["metric"]["name"] for each in theirs] != [each["metric"]["name"] for each in ours]:
                wrong.append(f"{file.name}: other metrics")
            wrong += [
                f"{file.name}: {a['metric']['name']}"
                for a, b in zip(theirs, ours, strict=False)
                if (a["metric"], a["model"]) != (b["metric"], b["model"])
            ]
    say("save_to_pytorch_benchmark_format", len(detailed), compared, wrong)
    plots(folder, next(iter(detailed.values())))


def plots(folder, result):
    from vllm.benchmarks.plot import generate_timeline_plot
    from vllm.benchmarks.sweep.plot import PlotBinners, PlotFilters, plot

    requests = [vars(each) if hasattr(each, "__dict__") else {} for each in outputs(result)]
    with contextlib.redirect_stdout(io.StringIO()):
        generate_timeline_plot(requests, folder / "timeline.html")
        arguments = SimpleNamespace(fig=folder / "figures")
        plot(
            folder, arguments.fig, [], [], [], ["label"], var_x="max_concurrency", var_y="output_throughput",
            filter_by=PlotFilters([]), bin_by=PlotBinners([]), scale_x=None, scale_y=None, dry_run=False,
        )  # fmt: skip
    drawn = [folder / "timeline.html", *arguments.fig.glob("*.png")]
    say(
        "generate_timeline_plot, bench sweep plot",
        sum(each.is_file() for each in drawn),
        0,
        [] if len(drawn) > 1 else ["the sweep was not drawn"],
    )


main()
