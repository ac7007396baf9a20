"""Rows of InferenceX (agg_bmk.json): one per cell of a closed loop, with vLLM's metrics in seconds and throughput per GPU.

Fields as in utils/process_result.py (2026-08), which makes them from a result of its copy of vLLM's client.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from enginebench.report.exporter import File, Material, as_json, exporter
from enginebench.report.exporters.vllm_serve import result_of
from enginebench.report.measured import Measured

_FRAMEWORKS = {"trtllm": "trt"}


@exporter(
    "inferencex", "InferenceX rows (agg_bmk.json)",
    read_by="InferenceX's collect_results.py, compare_results.py and its pages",
    definitions={
        "median_ttft, p99_tpot, ...": "those of vLLM's JSON, in s",
        "mean_intvty, median_intvty, pNN_intvty": "1 / the same statistic of TPOT, tokens/s",
        "tput_per_gpu": "(input + output tokens) / duration / (tp x pp)",
        "output_tput_per_gpu, input_tput_per_gpu": "its two parts",
        "isl, osl": "as asked for; of lengths that vary, the mean that was counted",
    },
    left_out={
        "loads without a fixed concurrency": "a row is identified by `conc`",
        "deployments with replicas": "the rows have none",
        "std_intvty": "1 / a standard deviation is not one",
        "spec_decoding": "'none' unless the deployment speculates, by `speculation` or by an option of its engine",
    },
)  # fmt: skip
def inferencex(run: Material) -> Iterator[File]:
    """A list of rows."""
    rows = [_row(cell, run) for cell in run.sampled("a row of InferenceX") if _fits(cell, run)]
    if rows:
        yield "agg_bmk.json", as_json(rows)


def _fits(cell: Measured, run: Material) -> bool:
    if cell.record.load.open_loop:
        run.say(f"{cell.row.name} at {cell.record.load.level_text}: InferenceX has no rows of open loops")
        return False
    if cell.record.deployment.parallelism.dp_replicas > 1:
        run.say(f"{cell.row.name}: InferenceX's rows have no replicas, and divide by tp x pp GPUs")
        return False
    if not cell.counted:
        run.say(f"{cell.row.name}: InferenceX needs output tokens, which nobody counted")
        return False
    return True


def _row(cell: Measured, run: Material) -> dict[str, Any]:
    deployment, spread, load = cell.record.deployment, cell.record.deployment.parallelism, cell.record.load
    result, gpus = result_of(cell, run), spread.tp * spread.pp
    ok = cell.ok
    asked = [value if isinstance(value, int) and load.lengths is None else None for value in (load.input_tokens, load.output_tokens)]
    means = [float(cell.input_tokens[ok].mean()) if ok.any() else 0.0, float(cell.output_tokens[ok].mean()) if ok.any() else 0.0]
    isl, osl = (round(mean) if number is None else number for number, mean in zip(asked, means, strict=True))
    speculates = deployment.speculation or any("spec" in name or "draft" in name for name, value in deployment.options.items() if value)
    method = "mtp" if deployment.speculation is not None and deployment.speculation.method == "mtp" else "draft" if speculates else "none"
    row: dict[str, Any] = {
        "hw": cell.hardware, "conc": load.concurrency, "image": deployment.container.image or "", "model": deployment.model,
        "infmax_model_prefix": deployment.model.rpartition("/")[2], "framework": _FRAMEWORKS.get(deployment.engine, deployment.engine),
        "precision": deployment.known_precision or "unknown", "spec_decoding": method, "disagg": False,
        "recipe_fingerprint": cell.record.id, "isl": isl, "osl": osl, "is_multinode": False,
        "tp": spread.tp, "pp": spread.pp, "dcp_size": 1, "pcp_size": 1, "ep": spread.ep,
        "dp_attention": "true" if spread.attention_dp > 1 else "false",
        "tput_per_gpu": result["total_token_throughput"] / gpus, "output_tput_per_gpu": result["output_throughput"] / gpus,
        "input_tput_per_gpu": (result["total_token_throughput"] - result["output_throughput"]) / gpus,
    }  # fmt: skip
    for key, value in result.items():
        if key.endswith("_ms"):
            row[key.removesuffix("_ms")] = value / 1000
            if "tpot" in key and not key.startswith("std") and value:
                row[key.removesuffix("_ms").replace("tpot", "intvty")] = 1000 / value
    return row
