"""Results of `llama-bench -o json`, `jsonl`, `csv` or `sql`, also as a SQLite database made of the last.

llama-bench has no server: it calls llama.cpp's decoder in its own process, without HTTP, tokenizer and sampling, with one sequence. A row
is a prompt alone (pp), generation alone (tg), or both after each other (pg),
each after `n_depth` tokens that are in the KV cache already. Facts
as in tools/llama-bench/llama-bench.cpp (b11434); rows of builds back to 2023 lack `n_depth` and others.
"""

import re
from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import Any

from enginebench.domain import ClosedLoop, Deployment, Load
from enginebench.records.dialect import Caveat, Dialect, Term
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.importer import UNKNOWN_PRECISION, Form, ImportedCell, Source, importer

_UNLIKE_A_SERVER = "there is no server: no HTTP, no tokenizer and no sampling are inside"
DIALECT = Dialect(
    (
        Term("TTFT", "-", "none: no request is timed"),
        Term("TPOT", "-", "none, though a tg row's time per token is 1 / its t/s"),
        Term("ITL", "-", "none"),
        Term("E2E", "avg_ns", "mean duration of a repetition, in ns"),
        Term(
            "output throughput", "avg_ts, tg", "of a row without prompt: mean over the repetitions of n_gen / duration",
            becomes="output_throughput", differs=_UNLIKE_A_SERVER,
        ),
        Term(
            "output throughput", "avg_ts, pp", "of a row without generation: mean over the repetitions of n_prompt / duration",
            becomes="input_throughput", differs=_UNLIKE_A_SERVER,
        ),
        Term(
            "output throughput", "n_gen / avg_ns", "of a pg row generated tokens / mean duration of a repetition, its prompt inside",
            becomes="output_throughput", factor=1e9, differs=_UNLIKE_A_SERVER,
        ),
        Term(
            "output throughput", "n_prompt / avg_ns", "of a pg row prompt tokens / mean duration of a repetition, its generation inside",
            becomes="input_throughput", factor=1e9, differs=_UNLIKE_A_SERVER,
        ),
        Term("output throughput", "avg_ts", "of a pg row mean over the repetitions of (n_prompt + n_gen) / duration: both together"),
        Term("output throughput", "stddev_ts", "its standard deviation over the repetitions of one process, not over restarts"),
        Term("request throughput", "-", "none"),
        Term("lengths", "n_prompt, n_gen, n_depth", "random tokens, exactly so many; a depth is in the KV cache before the clock starts"),
        Term("client queue", "-", "none: one sequence at a time"),
        Term("percentiles", "-", "none; mean and sample standard deviation"),
        Term("goodput", "-", "none"),
    ),
    (Caveat("repetitions run in one process: they do not show what differs between restarts"),),
)  # fmt: skip

_OPTIONS = (
    "n_batch", "n_ubatch", "n_threads", "cpu_mask", "cpu_strict", "poll", "type_k", "type_v", "n_gpu_layers", "n_cpu_moe", "split_mode",
    "main_gpu", "no_kv_offload", "flash_attn", "devices", "tensor_split", "tensor_buft_overrides", "use_mmap", "use_direct_io", "load_mode",
    "lazy_mode", "embeddings", "no_op_offload", "no_host", "repack", "f16_kv", "mul_mat_q", "low_vram", "backends",
)  # fmt: skip
"""What the deployment ran with, as far as a build states it."""
_TYPES = {"mxfp4_moe": "mxfp4", "all_f32": "f32", "mostly_f16": "f16"}


@importer("llama-bench", forms=(Form("rows", ("model_filename", "n_prompt", "n_gen", "avg_ns", "avg_ts")),), dialect=DIALECT)
def llama_bench(source: Source) -> Iterator[ImportedCell]:
    """One cell per row."""
    for row in source.records():
        duration_ns, prompt, generated = row.positive("avg_ns"), row.whole("n_prompt"), row.whole("n_gen")
        if not prompt + generated:
            raise row.error("a row with neither prompt nor generated tokens measures nothing", "n_prompt")
        each, repetitions = _repetitions(row)
        throughput = {"input_throughput": prompt, "output_throughput": generated}
        figures = {name: tokens / duration_ns * 1e9 for name, tokens in throughput.items() if tokens}
        if len(figures) == 1:
            figures = dict.fromkeys(figures, row.positive("avg_ts"))
        own = row.figures({name: (name, 1.0) for name in ("avg_ts", "stddev_ts", "avg_ns", "stddev_ns")})
        facts = {"hardware": hardware} if (hardware := _hardware(row)) else {}
        version = f"b{row.whole('build_number')}" if row.has("build_number") else None
        yield ImportedCell(
            _deployment(row), _load(row, prompt, generated, len(each)), figures, repetitions,
            sum(each) / 1e9 if each else None, own, version=version, facts=facts | ({"engine_version": version} if version else {}),
        )  # fmt: skip


def _repetitions(row: ForeignRecord) -> tuple[list[float], int]:
    """(durations, number) of the repetitions; only JSON has them, elsewhere at least one is certain."""
    if not row.has("samples_ns"):
        return [], 1
    each = list(row.numbers("samples_ns"))
    mean = sum(each) / len(each) if each else 0.0
    if not abs(mean - row.number("avg_ns")) <= max(1.0, 1e-6 * mean):
        raise row.error(f"the file is damaged: the mean of samples_ns is {mean:.0f}, and avg_ns {row.number('avg_ns'):.0f}", "samples_ns")
    return each, len(each)


def _deployment(row: ForeignRecord) -> Deployment:
    file = PureWindowsPath(row.text("model_filename")).name  # splits at both kinds of slashes; folders are nobody's business
    options = {name: row.get(name) for name in _OPTIONS if row.has(name)}
    precision = _precision(str(row.get("model_type") or ""))
    return Deployment("llamacpp", re.sub(r"\.gguf$", "", file), precision, file, runtime="in-process", options=options)


def _precision(model_type: str) -> str:
    """'llama 8B Q4_K - Medium' -> 'q4_k_m'."""
    words = re.search(r"\b((?:I?Q\d|TQ\d|MXFP4|NVFP4|BF16|F16|F32|all F32|mostly F16)\S*(?: MoE)?)(?:\s+-\s+(\w+))?", model_type)
    if words is None:
        return UNKNOWN_PRECISION
    kind = words[1].lower().replace(" ", "_")
    size = {"small": "_s", "medium": "_m", "large": "_l"}.get((words[2] or "").lower(), "")
    return _TYPES.get(kind, kind) + size


def _load(row: ForeignRecord, prompt: int, generated: int, repetitions: int) -> Load:
    """repetitions: 0 where the file does not say."""
    depth = row.whole("n_depth") if row.has("n_depth") else 0
    shared: dict[str, Any] = {"prefix_groups": 1, "prefix_tokens": depth} if depth else {}
    return ClosedLoop(
        concurrency=1, input_tokens=depth + prompt, output_tokens=generated, requests=repetitions,
        prefix_cache="allowed" if depth else "cold",
        **shared,
    )  # fmt: skip


def _hardware(row: ForeignRecord) -> str:
    """The GPUs; without any the CPU."""
    offloaded = not row.has("n_gpu_layers") or row.number("n_gpu_layers") != 0
    gpu = row.get("gpu_info")
    cpu = row.get("cpu_info")
    if not (isinstance(gpu, str) and gpu.strip() and offloaded):
        return cpu.strip() if isinstance(cpu, str) else ""
    each = [name.strip() for name in gpu.split(",")]
    return f"{len(each)}x{each[0]}" if len(set(each)) == 1 else gpu.strip()
