"""Rows of InferenceX (InferenceMAX before): `agg_*.json` of one run, and `agg_bmk.json`, which lists those of a sweep.

A row is made by utils/process_result.py of a result of the project's copy of vLLM's serving benchmark: every key '..._ms' in seconds, and
throughput per GPU. It does not say how many requests were measured. Single-turn rows only: those of multi-turn replays have other keys.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load, Parallelism
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

_NO_COUNT = "the rows do not say how many requests were measured; one per stream is certain"
DIALECT = Dialect(
    (
        Term("TTFT", "ttft", "first chunk with output - start of the request", becomes="ttft"),
        Term("TPOT", "tpot", "per request (E2E - TTFT) / (output tokens - 1)", becomes="tpot"),
        Term("TPOT", "intvty", "interactivity: 1 / the same statistic of TPOT, in tokens/s; its p99 is that of the slowest"),
        Term("ITL", "itl", "gaps between chunks of all requests", becomes="itl"),
        Term("E2E", "e2el", "last chunk - start of the request", becomes="e2e"),
        Term("output throughput", "output_tput_per_gpu", "output tokens / duration / GPUs; of a disaggregated row, decode GPUs only",
             becomes="output_throughput"),
        Term("output throughput", "input_tput_per_gpu", "prompt tokens / duration / GPUs; of a disaggregated row, prefill GPUs only",
             becomes="input_throughput"),
        Term("output throughput", "tput_per_gpu", "prompt and output tokens together / duration / all GPUs"),
        Term("request throughput", "-", "none in the rows"),
        Term("lengths", "isl, osl",
             "the upper end: lengths are drawn evenly from 80 % of it up to it (RANDOM_RANGE_RATIO: 0.8 of its workflows)"),
        Term("client queue", "-", "inside TTFT where the client is late: it starts the clock before it has a connection"),
        Term("percentiles", "-", "numpy, linear interpolation"),
        Term("goodput", "-", "none"),
    ),
    (
        Caveat(_NO_COUNT),
        Caveat("its client is a copy of vLLM's, which is late by itself: TTFT by 46 ms on average at 256 streams", "docs/fidelity.md", 256),
    ),
)  # fmt: skip
_POWER = (
    "avg_power_w",
    "avg_total_gpu_power_w",
    "total_gpu_energy_j",
    "joules_per_output_token",
    "joules_per_input_token",
    "joules_per_total_token",
)
_FRAMEWORKS = {"trt": "trtllm", "trtllm": "trtllm", "tensorrt-llm": "trtllm"}
_KNOWN = ("vllm", "sglang", "trtllm")


@importer("InferenceX", forms=(Form("rows", ("hw", "conc", "tput_per_gpu")),), dialect=DIALECT)
def inferencex(source: Source) -> Iterator[ImportedCell]:
    """One cell per row."""
    for row in source.records():
        if not row.has("conc"):
            raise row.error("must be a number: rows without concurrency, such as those of multi-turn replays, cannot be imported", "conc")
        streams = row.whole("conc")
        if not streams:
            raise row.error("must be 1 or more", "conc")
        own, figures = _latencies(row)
        own |= {name: row.number(name) for name in ("tput_per_gpu", "output_tput_per_gpu", "input_tput_per_gpu") if row.has(name)}
        if row.get("power_valid") not in (0, False, "0"):
            own |= {name: row.number(name) for name in _POWER if row.has(name)}
        parts = _gpus(row)
        for theirs, ours, gpus in (
            ("output_tput_per_gpu", "output_throughput", parts["output"]), ("input_tput_per_gpu", "input_throughput", parts["input"]),
        ):  # fmt: skip
            if row.has(theirs):
                figures[ours] = row.number(theirs) * gpus
        yield ImportedCell(
            _deployment(row), _load(row, streams), figures, streams, own=own, facts=_facts(row, parts["all"]), caveats=_caveats(row)
        )


def _latencies(row: ForeignRecord) -> tuple[dict[str, float], dict[str, float]]:
    """(all as stated, those with an equal). Keys are 'median_ttft' or 'ttft_p50'."""
    own, figures = dict[str, float](), dict[str, float]()
    for key in row.data:
        words = key.split("_")
        metric = next((word for word in words if word in ("ttft", "tpot", "intvty", "itl", "e2el")), None)
        statistic = next((word for word in words if word in ("mean", "median", "std") or (word[:1] == "p" and word[1:].isdigit())), None)
        if metric is None or statistic is None or len(words) != 2 or not row.has(key):
            continue
        own[key] = value = row.number(key)
        percentile = {"median": "p50"}.get(statistic, statistic)
        if metric != "intvty" and percentile in ("p50", "p90", "p99") and value > 0:
            figures[f"{DIALECT.term(metric).becomes}_{percentile}"] = value
    if (middle := own.get("median_intvty", own.get("intvty_p50"))) is not None:
        figures["user_throughput"] = middle
    return own, figures


def _gpus(row: ForeignRecord) -> Mapping[str, int]:
    """GPUs that the throughput of a row was divided by."""
    if row.get("is_multinode") is True or row.has("num_prefill_gpu"):
        prefill, decode = row.whole("num_prefill_gpu"), row.whole("num_decode_gpu") if row.has("num_decode_gpu") else 0
        return {"all": prefill + decode, "input": prefill, "output": decode or prefill}
    one = max(1, row.whole("tp")) * _degree(row, "pp") * _degree(row, "pcp_size")
    return {"all": one, "input": one, "output": one}


def _degree(row: ForeignRecord, key: str) -> int:
    return max(1, row.whole(key)) if row.has(key) else 1


def _true(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "1")


def _deployment(row: ForeignRecord) -> Deployment:
    model, framework = row.text("model"), str(row.get("framework") or "unknown").lower()
    words = framework.removeprefix("dynamo-").removesuffix("-disagg")
    engine = next((name for name in _KNOWN if _FRAMEWORKS.get(words, words) == name), framework)
    two = row.has("num_prefill_gpu") or row.get("is_multinode") is True
    tp = _degree(row, "decode_tp" if two else "tp")
    spread = Parallelism(
        tp=tp, pp=_degree(row, "decode_pp" if two else "pp"), ep=_degree(row, "decode_ep" if two else "ep"),
        dp_replicas=_degree(row, "decode_num_workers") if two else 1,
        attention_dp=tp if _true(row.get("decode_dp_attention" if two else "dp_attention")) else 1,
    )  # fmt: skip
    names = (
        "framework", "spec_decoding", "mtp", "disagg", "router", "kv_p2p_transfer", "image", "recipe_fingerprint", "prefill_tp",
        "prefill_pp",
        "prefill_ep", "prefill_dp_attention", "prefill_num_workers", "dcp_size", "pcp_size", "prefill_hw", "decode_hw",
    )  # fmt: skip
    options = {"hw": row.text("hw"), **{name: row.get(name) for name in names if row.has(name)}}
    precision = str(row.get("precision") or UNKNOWN_PRECISION).lower()
    return Deployment(engine, model, precision, model, "attach", spread, options=options)


def _load(row: ForeignRecord, streams: int) -> Load:
    lengths = {
        name: row.whole(theirs) if row.has(theirs) else "data" for name, theirs in (("input_tokens", "isl"), ("output_tokens", "osl"))
    }
    return ClosedLoop(concurrency=streams, requests=0, prompts="random", prefix_cache="allowed", **lengths)  # type: ignore[arg-type]


def _facts(row: ForeignRecord, gpus: int) -> dict[str, str]:
    facts = {"hardware": f"{gpus}x{row.text('hw').lower().split('-')[0]}"}  # 'gb200-nv', 'mi355x-disagg': a pool of runners
    if row.has("image") and ":" in row.text("image"):
        facts["engine_version"] = row.text("image").rsplit(":", 1)[1]
    return facts


def _caveats(row: ForeignRecord) -> tuple[str, ...]:
    if _true(row.get("disagg")):
        return ("prefill and decode ran on separate GPUs; the degrees of parallelism shown are those of decode",)
    return ()
