"""TensorRT-LLM's `LLM` in-process: `trtllm_worker.py MODEL SETTINGS`, a JSON file of its arguments. Unverified: never run."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker_protocol import Batch, Outcome, Prompt, RequestOutcome, ScoreRequest, Scores, metered, run_worker
from worker_scores import of_entries


class Offline:
    def __init__(self, model: str, settings: Mapping[str, Any]) -> None:
        import tensorrt_llm

        self.version = str(tensorrt_llm.__version__)
        self._sampling_params = tensorrt_llm.SamplingParams
        self._llm = tensorrt_llm.LLM(model=model, **settings)
        name = Path(model).name if Path(model).is_dir() else model
        self.resolved: Mapping[str, object] = {"/version": {"version": self.version}, "/v1/models": {"data": [{"id": name}]}}

    def run(self, batch: Batch) -> Outcome:
        params = self._sampling_params(
            max_tokens=batch.output_tokens, ignore_eos=True, temperature=batch.temperature, top_p=1.0, detokenize=False,
            seed=batch.seed if batch.temperature > 0 else None, add_special_tokens=False,
        )  # fmt: skip

        async def answer(prompt: Prompt) -> RequestOutcome:
            output = await self._llm.generate_async(prompt, sampling_params=params).aresult()
            made = output.outputs[0]
            error = None if made.finish_reason == "length" else f"ended with '{made.finish_reason}'"
            return RequestOutcome(len(output.prompt_token_ids), len(made.token_ids), error)

        return asyncio.run(metered(batch, answer))

    def score(self, request: ScoreRequest) -> Scores:
        """TensorRT-LLM's prompt_logprobs: one entry for each token of the prompt but the first."""
        wanted = self._sampling_params(max_tokens=1, prompt_logprobs=max(1, request.top), detokenize=False, add_special_tokens=False)
        output = self._llm.generate(request.ids, sampling_params=wanted)
        entries = output.outputs[0].prompt_logprobs
        return of_entries([{}, *entries][: len(request.ids)], request)


if __name__ == "__main__":  # its MPI workers import this file again
    model, file = sys.argv[1:]
    sys.exit(run_worker(lambda: Offline(model, json.loads(Path(file).read_text(encoding="utf-8")))))
