"""TensorRT-LLM's `LLM` without a wire: `trtllm_worker.py MODEL SETTINGS`, where SETTINGS is a JSON file of its arguments.

Knows nothing of the harness but the line protocol on stdin and stdout. Runs where TensorRT-LLM is installed; imports only that and the
standard library. Unverified: written after its public source, never run.
"""

# (the engine is installed in an environment of its own, not in the harness's)
from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker_protocol import Batch, Outcome, Prompt, RequestOutcome, run_worker


class Offline:
    """One `LLM`, fed so that no more requests are in it than a load asks for."""

    def __init__(self, model: str, settings: Mapping[str, Any]) -> None:
        import tensorrt_llm

        self.version = str(tensorrt_llm.__version__)
        self._sampling_params = tensorrt_llm.SamplingParams
        self._llm = tensorrt_llm.LLM(model=model, **settings)
        self.resolved: Mapping[str, object] = {
            "/version": {"version": self.version},
            "/v1/models": {"data": [{"id": Path(model).name if Path(model).is_dir() else model}]},
        }

    def run(self, batch: Batch) -> Outcome:
        """`LLM.generate` would take every prompt at once, whatever the load's concurrency; its asynchronous form is metered here."""
        return asyncio.run(self._metered(batch))

    async def _metered(self, batch: Batch) -> Outcome:
        params = self._sampling_params(
            max_tokens=batch.output_tokens, ignore_eos=True, temperature=batch.temperature, top_p=1.0, detokenize=False,
            seed=batch.seed if batch.temperature > 0 else None, add_special_tokens=False,
        )  # fmt: skip
        free = asyncio.Semaphore(batch.batch)

        async def answer(prompt: Prompt) -> RequestOutcome:
            async with free:
                return _outcome(await self._llm.generate_async(prompt, sampling_params=params).aresult())

        start = time.monotonic_ns()
        outcomes = await asyncio.gather(*map(answer, batch.prompts))
        return Outcome(start, time.monotonic_ns(), outcomes)


def _outcome(output: Any) -> RequestOutcome:
    answer = output.outputs[0]
    error = None if answer.finish_reason == "length" else f"ended with '{answer.finish_reason}'"
    return RequestOutcome(len(output.prompt_token_ids), len(answer.token_ids), error)


def main(argv: Sequence[str]) -> int:
    """`trtllm_worker.py MODEL SETTINGS`."""
    model, file = argv
    return run_worker(lambda: Offline(model, json.loads(Path(file).read_text(encoding="utf-8"))))


if __name__ == "__main__":  # its MPI workers import this file again
    sys.exit(main(sys.argv[1:]))
