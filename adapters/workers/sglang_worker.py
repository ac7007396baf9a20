"""SGLang's `Engine` without a wire: the flags of its server, the harness's line protocol on stdin and stdout.

Knows nothing of the harness but that protocol. Runs where SGLang is installed; imports only that and the standard library.
Unverified: the engine itself needs a GPU; its parser, and the fields and methods used here, are those of 0.5.23.
"""

# (the engine is installed in an environment of its own, not in the harness's)
from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from worker_protocol import Batch, Outcome, Prompt, RequestOutcome, run_worker


class Offline:
    """One `Engine`, fed so that no more requests are in it than a load asks for."""

    def __init__(self, argv: Sequence[str]) -> None:
        import sglang
        from sglang.srt.server_args import prepare_server_args

        self.version = str(sglang.__version__)
        self._engine = sglang.Engine(server_args=prepare_server_args(list(argv)))
        told = json.loads(json.dumps(self._engine.get_server_info(), default=str))
        self.resolved: Mapping[str, object] = {"/server_info": told}

    def run(self, batch: Batch) -> Outcome:
        """`Engine.generate` would take every prompt at once, whatever the load's concurrency; its asynchronous form is metered here."""
        outcome: Outcome = self._engine.loop.run_until_complete(self._metered(batch))
        return outcome

    async def _metered(self, batch: Batch) -> Outcome:
        sampling: dict[str, object] = {"max_new_tokens": batch.output_tokens, "ignore_eos": True, "temperature": batch.temperature}
        sampling |= {"top_p": 1.0, "top_k": -1, "min_p": 0.0}
        if batch.temperature > 0:
            sampling["sampling_seed"] = batch.seed
        free = asyncio.Semaphore(batch.batch)

        async def answer(prompt: Prompt) -> RequestOutcome:
            spelled = {"prompt": prompt} if isinstance(prompt, str) else {"input_ids": prompt}
            async with free:
                return _outcome(await self._engine.async_generate(sampling_params=sampling, **spelled))

        start = time.monotonic_ns()
        outcomes = await asyncio.gather(*map(answer, batch.prompts))
        return Outcome(start, time.monotonic_ns(), outcomes)


def _outcome(answer: Mapping[str, Any]) -> RequestOutcome:
    told = answer["meta_info"]
    reason = told["finish_reason"]
    kind = reason["type"] if isinstance(reason, dict) else reason
    error = None if kind == "length" else f"ended with '{kind}': {reason}"
    return RequestOutcome(told["prompt_tokens"], told["completion_tokens"], error, cached_tokens=told.get("cached_tokens"))


def main(argv: Sequence[str]) -> int:
    """`sglang_worker.py`, then the flags of SGLang's server."""
    return run_worker(lambda: Offline(argv))


if __name__ == "__main__":  # SGLang's own processes import this file again
    sys.exit(main(sys.argv[1:]))
