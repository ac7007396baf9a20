"""What workers share: the routing job, and the limit of a launch. No engine is needed."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enginebench.adapter import WORKERS

SPEC = importlib.util.spec_from_file_location("worker_protocol_under_test", WORKERS / "worker_protocol.py")
assert SPEC is not None
assert SPEC.loader is not None
protocol: Any = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = protocol  # dataclasses look up their module there
SPEC.loader.exec_module(protocol)


def collect(job: Mapping[str, Any]) -> dict[str, Any]:
    if not job["prompts"]:
        raise ValueError("no prompts")
    return {"choices": np.ones((3, 2, 1), np.int16), "experts": 8}


@pytest.mark.parametrize(
    ("prompts", "code", "reply"),
    [([[1, 2]], 0, {"source": "an engine 1.0"}), ([], 1, {"error": "ValueError: no prompts"})],
)
def test_the_routing_job(
    prompts: list[list[int]], code: int, reply: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "choices.npz"
    job = {"name": "moe", "out": str(out), "prompts": prompts}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(job) + "\n"))
    assert protocol.run_routing(collect, "an engine 1.0") == code
    assert json.loads(capsys.readouterr().out) == reply
    assert out.exists() == (code == 0)
    if code == 0:
        with np.load(out) as arrays:
            assert json.loads(str(arrays["told"])) == {"model": "moe", "source": "an engine 1.0", "experts": 8}
            assert arrays["choices"].shape == (3, 2, 1)


def test_a_batch_is_not_larger_than_the_launch() -> None:
    batch = protocol.Batch([[1]], output_tokens=1, batch=3)
    batch.check_limit(3)
    with pytest.raises(ValueError, match="batch 3 is more than the 2 requests of this launch"):
        batch.check_limit(2)


@pytest.mark.parametrize(("dtype", "shape"), [("<i2", (3, 2, 1)), ("|b1", (5,)), ("<i4", (1,))])
def test_an_array_without_numpy_is_read_by_numpy(dtype: str, shape: tuple[int, ...]) -> None:
    made = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    read = np.load(io.BytesIO(protocol.Flat(dtype, shape, made.tobytes()).npy()))
    assert read.dtype == made.dtype
    assert np.array_equal(read, made)
