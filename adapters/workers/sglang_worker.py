"""SGLang's `Engine` in-process, with the flags of its server.

Unverified, because the engine needs a GPU: its parser, and the fields and methods used here, are those of 0.5.23.
"""

import json
import sys
from collections.abc import Mapping, Sequence

from worker_protocol import Batch, Outcome, Prompt, RequestOutcome, ScoreRequest, Scores, metered, run_worker
from worker_scores import finite, pairs


class Offline:
    def __init__(self, argv: Sequence[str]) -> None:
        import sglang
        from sglang.srt.server_args import prepare_server_args

        self.version = str(sglang.__version__)
        self._engine = sglang.Engine(server_args=prepare_server_args(list(argv)))
        info = json.loads(json.dumps(self._engine.get_server_info(), default=str))
        self.resolved: Mapping[str, object] = {"/server_info": info}

    def run(self, batch: Batch) -> Outcome:
        sampling: dict[str, object] = {"max_new_tokens": batch.output_tokens, "ignore_eos": True, "temperature": batch.temperature}
        sampling |= {"top_p": 1.0, "top_k": -1, "min_p": 0.0}
        if batch.temperature > 0:
            sampling["sampling_seed"] = batch.seed

        async def answer(prompt: Prompt) -> RequestOutcome:
            request = {"prompt": prompt} if isinstance(prompt, str) else {"input_ids": prompt}
            meta = (await self._engine.async_generate(sampling_params=sampling, **request))["meta_info"]
            reason = meta["finish_reason"]
            kind = reason["type"] if isinstance(reason, dict) else reason
            error = None if kind == "length" else f"ended with '{kind}': {reason}"
            return RequestOutcome(meta["prompt_tokens"], meta["completion_tokens"], error, cached_tokens=meta.get("cached_tokens"))

        outcome: Outcome = self._engine.loop.run_until_complete(metered(batch, answer))
        return outcome

    def score(self, request: ScoreRequest) -> Scores:
        """SGLang's input_token_logprobs: [logprob, id, text] for each token of the prompt, the first without a logprob."""
        asked = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": request.top}
        sampling = {"max_new_tokens": 1, "temperature": 0.0}
        waiting = self._engine.async_generate(input_ids=request.ids, sampling_params=sampling, **asked)
        meta = self._engine.loop.run_until_complete(waiting)["meta_info"]
        own = [finite(entry[0]) for entry in meta["input_token_logprobs"][request.first :]]
        tops = meta["input_top_logprobs"][request.first :] if request.top else []
        return {"logprobs": own, "top": [pairs([e[1] for e in top], [e[0] for e in top]) for top in tops]}


if __name__ == "__main__":  # SGLang's own processes import this file again
    sys.exit(run_worker(lambda: Offline(sys.argv[1:])))
