"""A synthetic run, written through the real store: two models, three deployments, and everything that can go wrong in a run.

Its samples come from arithmetic (a golden-ratio sequence), not from a random generator, so that golden files hold for every numpy.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from enginebench.adapter import Difference, Install, Launch
from enginebench.analysis import figure_cache
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.domain import Cell, ClosedLoop, Deployment, Load, Parallelism
from enginebench.loadgen.transport.library import library
from enginebench.records.cell import CellRecord, CellTraits, ClientFacts, Delivery, EngineCounters, PromptFacts
from enginebench.records.counters import CounterSeries
from enginebench.records.launch import Configuration, LaunchRecord, Startup
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from hypothesis import HealthCheck, settings

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")  # a fresh clone makes hypothesis' table of characters first, which takes a second


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: three workers for each core, because many tests wait for an engine or a timer."""
    return min(3 * (os.cpu_count() or 1), 16)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Before the first worker starts."""
    from . import byte_code, forked_bench

    forked_bench.start()
    byte_code.make(config)


CLOCK_TRIES = 4


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests marked `clock` are tried again: other programs can make what they time too slow, but not too fast."""
    if pyfuncitem.get_closest_marker("clock") is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    for left in reversed(range(CLOCK_TRIES)):
        try:
            pyfuncitem.obj(**arguments)
            break
        except AssertionError:
            if not left:
                raise
            if "tmp_path" in pyfuncitem.fixturenames:
                for each in pyfuncitem._request.getfixturevalue("tmp_path").iterdir():
                    shutil.rmtree(each) if each.is_dir() else each.unlink()
            time.sleep(1)
    return True


FetchedFromHub = Callable[[Path], Path]
HOSTILE = "</script><script>alert(1)</script>"
"""A label that would run code wherever somebody forgot to escape it."""

MODELS = ("scout-17b-16e", "olmoe-1b-7b")
CONCURRENCIES = (1, 4, 16)
INPUTS = (128, 1024)
REPEATS = 3
OUTPUT_TOKENS = 32


@dataclass(frozen=True)
class Pace:
    """How fast a synthetic engine is: seconds to the first token and per token with one stream."""

    ttft_s: float
    tpot_s: float


PACES = {"llamacpp": Pace(0.020, 0.0050), "vllm": Pace(0.030, 0.0042), "attach": Pace(0.025, 0.0047)}


def synthetic_samples(load: Load, pace: Pace, *, seed: int, output_tokens: int | None = None) -> Samples:
    """`load.requests` requests in `load.concurrency` lanes whose times are never below the pace and have an exponential tail."""
    assert isinstance(load.input_tokens, int)
    assert isinstance(load.output_tokens, int)
    n, tokens = load.requests, output_tokens or load.output_tokens
    golden = (math.sqrt(5) - 1) / 2
    spread = lambda k: np.mod((np.arange(n * k, dtype=np.float64) + 1 + 31 * seed) * golden, 1)  # noqa: E731  # even in [0, 1)
    wobble = lambda k: 1 + 0.12 * -np.log1p(-spread(k))  # noqa: E731
    slow = 1 + 0.12 * (load.concurrency - 1)
    first = (pace.ttft_s * slow * (0.5 + load.input_tokens / 256) * wobble(1) * 1e9).astype(np.int64)
    gaps = (pace.tpot_s * slow * wobble(tokens - 1).reshape(n, tokens - 1) * 1e9).astype(np.int64)
    took = first + gaps.sum(axis=1)
    lane, turn = np.arange(n) % load.concurrency, np.arange(n) // load.concurrency
    sent = np.full(n, 1_000_000_000, dtype=np.int64)
    for i in np.flatnonzero(turn > 0):
        sent[i] = sent[i - load.concurrency] + took[i - load.concurrency] + 50_000
    events = np.concatenate([(sent + first)[:, None], (sent + first)[:, None] + np.cumsum(gaps, axis=1)], axis=1)
    full = lambda value: np.full(n, value, dtype=np.int64)  # noqa: E731
    return Samples(
        index=lane + turn * load.concurrency,
        asked_input_tokens=full(load.input_tokens),
        asked_output_tokens=full(load.output_tokens),
        due_ns=sent,
        sent_ns=sent,
        headers_ns=sent + first // 2,
        end_ns=events[:, -1] + 20_000,
        input_tokens=full(load.input_tokens),
        output_tokens=full(tokens),
        cached_tokens=full(0),
        status_code=full(200),
        outcome=("ok",) * n,
        error=(None,) * n,
        finish_reason=("length",) * n,
        first_answer_ns=events[:, 0].copy(),
        local_tokens=full(-1),
        reasoning_tokens=full(-1),
        conversation=full(-1),
        turn=full(0),
        event_ns=events.ravel(),
        event_tokens=np.ones(n * tokens, dtype=np.int32),
        event_chars=np.full(n * tokens, 4, dtype=np.int32),
        offsets=np.arange(0, n * tokens + 1, tokens, dtype=np.int64),
        server_timings=(None,) * n,
    )


def synthetic_deployments(model: str) -> tuple[Deployment, ...]:
    """Three ways to serve a model; one has a hostile label, one a long option, one is tensor-parallel."""
    return (
        Deployment("llamacpp", model, "f16", f"hf:{model}", options={"n_gpu_layers": 99, "cache_type_k_for_the_attention_layers": "q8_0"}),
        Deployment("vllm", model, "bf16", f"hf:{model}", parallelism=Parallelism(tp=2), options={"enable_expert_parallel": True}),
        Deployment("attach", model, "bf16", f"hf:{model}", runtime="attach", url="http://127.0.0.1:8000", label=HOSTILE),
    )


def synthetic_cells() -> Iterator[Cell]:
    """The plan: repeats interleave the deployments."""
    for repeat in range(REPEATS):
        for model in MODELS:
            for deployment in synthetic_deployments(model):
                for tokens in INPUTS:
                    for streams in CONCURRENCIES:
                        requests = 320 if streams == 16 else 40  # enough for a p99 only at 16 streams
                        load = ClosedLoop(concurrency=streams, input_tokens=tokens, output_tokens=OUTPUT_TOKENS, requests=requests)
                        yield Cell(deployment, load, repeat)


def synthetic_record(cell: Cell) -> tuple[CellRecord, Samples | None]:
    """What the run holds of one cell: mostly good figures, and one of each kind of trouble."""
    deployment, load = cell.deployment, cell.load
    engine, first = deployment.engine, deployment.model == MODELS[0]
    record = CellRecord(
        cell.id,
        cell.launch_id,
        deployment,
        load,
        cell.repeat,
        "ok",
        started_at="2026-01-02T03:04:05+00:00",
        wall_s=12.5,
        client=ClientFacts(
            {"loop_lag_p99_ms": 0.21, "cpu_fraction": 0.31, "achieved_concurrency": float(load.concurrency), "loop": "uvloop"}
        ),
        counters=EngineCounters({"prompt_tokens": float(load.requests * load.input_tokens)}),
        identity="proven",
    )
    at = (engine, load.concurrency, load.input_tokens) if first else None
    if at == ("attach", 16, 1024):
        return replace(record, status="skipped", reason="weights 215.5 GB + KV 12.9 GB do not fit 2 x 80 GB"), None
    if at == ("vllm", 16, 1024):
        tail = ("INFO loading weights", f"ERROR out of memory {HOSTILE}", "engine core died")
        return replace(record, status="failed", reason="the engine ended with exit code 1 before it was ready", log_tail=tail), None
    if at == ("llamacpp", 4, 128):
        record = replace(record, client=ClientFacts({**record.client.health, "cpu_fraction": 0.97}))
    pace = PACES[engine]
    pace = pace if first else Pace(pace.ttft_s / 2, pace.tpot_s / 2)
    record = replace(
        record,
        counters=replace(record.counters, series=synthetic_series(load)),
        delivery=Delivery((1_000_000_000, 60_000_000_000)),
        prompts=PromptFacts("ids"),
        traits=CellTraits(gpus=2),
    )
    drift = 1 + 0.015 * ((cell.repeat + len(engine)) % REPEATS - 1)  # a server restart is never quite the same
    pace = Pace(pace.ttft_s * drift**2, pace.tpot_s * drift)
    short = 20 if at == ("attach", 4, 128) else None
    return record, synthetic_samples(load, pace, seed=cell.repeat + 3 * len(engine), output_tokens=short)


def synthetic_series(load: Load) -> CounterSeries:
    """Counters four times a second for as long as a load might last: the batch fills, and its KV cache goes up and down."""
    at = range(12)
    return CounterSeries(
        tuple(1_000_000_000 + i * 250_000_000 for i in at),
        {
            "output_tokens": tuple(100.0 * i * load.concurrency for i in at),
            "running": tuple(float(min(i, load.concurrency)) for i in at),
            "waiting": tuple(float(i == 1) for i in at),
            "kv_use": tuple(None if i == 5 else 0.1 * (i % 4) for i in at),
        },
        cpu_s=0.08,
    )


def synthetic_launch(cell: Cell) -> LaunchRecord:
    """The server start that a cell needed."""
    deployment = cell.deployment
    options = [f"--{name}={v}" for name, v in deployment.options.items()]
    heads = {"llamacpp": "The capital of France is Paris.", "vllm": "The capital of France is Paris.", "attach": "The capital of Italy"}
    return LaunchRecord(
        cell.launch_id,
        deployment,
        cell.repeat,
        "2026-01-02T03:00:00+00:00",
        Startup(
            Launch(
                (deployment.engine, "serve", "--model", deployment.model, "--port", "8000", *options),
                deployment.model,
                env={"OMP_NUM_THREADS": "8"},
                notes=("bf16 KV cache became auto",),
            ),
            Install("wheel", "1.2.3"),
            start_s=41.2,
            stop_s=1.3,
            identity="proven",
        ),
        Configuration(
            {"slots": 8 if deployment.engine == "vllm" else 16, "prefix_cache": deployment.engine == "vllm", "raw": {"blocks": 4096}},
            (Difference("slots", 16, 8),) if deployment.engine == "vllm" else (),
        ),
        parity=(
            {"prompt": "The capital of France is", "output": heads[deployment.engine], "outcome": "ok"},
            {"prompt": "2 + 2 =", "output": " 4", "outcome": "ok"},
        ),
        ended="stopped",
    )


MACHINE = {
    "os": "Linux 6.8",
    "cpu": {"model": "Example 9654", "cores": 96, "memory_gb": 768},
    "gpus": [
        {"name": "NVIDIA H100 80GB HBM3", "memory_gb": 80, "driver": "580.65"},
        {"name": "NVIDIA H100 80GB HBM3", "memory_gb": 80, "driver": "580.65"},
    ],
}


@pytest.fixture(scope="session", autouse=True)
def own_leases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs of tests do not see other runs on this machine: several workers test at once, and people may measure beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINEBENCH_LEASES", str(tmp_path_factory.mktemp("leases")))
        yield


@pytest.fixture(scope="session", autouse=True)
def own_figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Figures that tests compute are not kept in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("figures")
        patch.setattr(figure_cache, "folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def built_receiver() -> None:
    """The test needs the load generator's receiver in C."""
    if library() is None:
        reason = "the receiver was not built: it needs Linux and a C compiler"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def write_synthetic_run(folder: Path, cells: list[Cell]) -> Run:
    """A finished run of these cells."""
    record = RunRecord(
        "synthetic", "2026-01-02T03:00:00+00:00", {"name": "synthetic"}, "0123456789ab", tuple(c.id for c in cells), MACHINE, "0.1.0"
    )
    run = Run.create(folder, record, "name: synthetic\n")
    for cell in cells:
        run.add_launch(synthetic_launch(cell))
        run.add_cell(*synthetic_record(cell))
    return run


@pytest.fixture(scope="session")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of 108 cells, read-only for all tests."""
    return write_synthetic_run(tmp_path_factory.mktemp("results") / "synthetic", list(synthetic_cells()))


@pytest.fixture(scope="session")
def one_restart(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The 36 cells of its first restart, for tests whose time grows with the number of cells."""
    cells = [cell for cell in synthetic_cells() if cell.repeat == 0]
    return write_synthetic_run(tmp_path_factory.mktemp("results") / "synthetic", cells)


@pytest.fixture(scope="session")
def synthetic_analysis(synthetic_run: Run) -> Analysis:
    """The same run, understood."""
    return analyse(synthetic_run)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Where the expected outputs lie."""
    return Path(__file__).parent / "golden"


@pytest.fixture
def fetched_from_hub() -> FetchedFromHub:
    """fetched_from_hub(home) -> the folder with a small model that Hugging Face's libraries would have fetched as org/name."""

    def fetch(hf_home: Path) -> Path:
        repository, commit = hf_home / "hub" / "models--org--name", "0" * 40
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        model = RandomMoE(layers=1, hidden=64, heads=2, kv_heads=1, experts=4, top_k=2, expert_intermediate=32)
        write_hf_folder(model, "f32", repository / "snapshots" / commit)
        return repository / "snapshots" / commit

    return fetch
