"""Assisted generation in-process: transformers' `generate` with a draft model or with prompt lookup, one prompt at a time.

Continuous batching has no speculation, so neither has the server. Counts what is proposed and accepted, which transformers does not report.
"""

import argparse
import time
from collections import Counter
from typing import Any

import torch
import transformers
from transformers.generation.streamers import BaseStreamer
from worker_protocol import Batch, Outcome, RequestOutcome


class Stamps(BaseStreamer):  # type: ignore[misc]  # untyped here: it is installed in the engine's environment
    """When each output token was there; the tokens of a step come together."""

    def __init__(self) -> None:
        self.ns: list[int] = []
        self._prompt = True

    def put(self, value: Any) -> None:
        if not self._prompt:
            self.ns += [time.monotonic_ns()] * int(value.numel())
        self._prompt = False

    def end(self) -> None:
        pass


class Assisted:
    """A loaded model with what proposes tokens for it."""

    def __init__(self, args: argparse.Namespace, model: Any) -> None:
        self._args, self._model = args, model
        self.counts: Counter[str] = Counter()
        self._how: dict[str, Any] = {}
        if args.prompt_lookup_num_tokens is not None:
            self._how = {"prompt_lookup_num_tokens": args.prompt_lookup_num_tokens, "max_matching_ngram_size": args.max_matching_ngram_size}
        else:
            draft = transformers.AutoModelForCausalLM.from_pretrained(args.assistant_model, dtype=model.dtype).to(model.device).eval()
            constant = {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}
            draft.generation_config.update(num_assistant_tokens=args.num_assistant_tokens, **constant)
            self._how = {"assistant_model": draft}
        make = model._get_candidate_generator  # noqa: SLF001  # no public place to look

        def observed(**arguments: Any) -> Any:
            return self._watch(make(**arguments))

        model._get_candidate_generator = observed  # noqa: SLF001

    def _watch(self, generator: Any) -> Any:
        propose, learn = generator.get_candidates, generator.update_candidate_strategy
        proposed = 0

        def get_candidates(ids: Any, **others: Any) -> Any:
            nonlocal proposed
            found = propose(ids, **others)
            proposed = int(found[0].shape[1] - ids.shape[1])
            return found

        def update(ids: Any, scores: Any, matches: int) -> None:
            accepted = min(int(matches), proposed)
            if proposed:
                self.counts.update({"drafts": 1, "draft_tokens": proposed, "accepted_tokens": accepted})
                self.counts.update(f"accepted_at_{position}" for position in range(1, accepted + 1))
            learn(ids, scores, matches)

        generator.get_candidates, generator.update_candidate_strategy = get_candidates, update
        return generator

    def run(self, batch: Batch, ids_of: Any) -> Outcome:
        """One prompt after another: assisted generation takes one sequence."""
        batch.check_limit(1)
        transformers.set_seed(batch.seed)
        start = time.monotonic_ns()
        outcomes = [self._generate(ids_of(prompt), batch) for prompt in batch.prompts]
        return Outcome(start, time.monotonic_ns(), outcomes)

    def _generate(self, prompt: list[int], batch: Batch) -> RequestOutcome:

        greedy = batch.temperature == 0.0
        sampling: dict[str, Any] = {} if greedy else {"temperature": batch.temperature, "top_k": 0, "top_p": 1.0}
        before, stamps = Counter(self.counts), Stamps()
        ids = torch.tensor([prompt], device=self._model.device)
        with torch.inference_mode():
            whole = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=batch.output_tokens, min_new_tokens=batch.output_tokens,
                do_sample=not greedy, streamer=stamps, pad_token_id=0, **sampling, **self._how,
            )  # fmt: skip
        counted = {name: float(value - before[name]) for name, value in self.counts.items()}
        return RequestOutcome(len(prompt), int(whole.shape[1] - ids.shape[1]), token_ns=stamps.ns, cached_tokens=0, counts=counted)


def asked(args: argparse.Namespace) -> bool:
    return args.assistant_model is not None or args.prompt_lookup_num_tokens is not None
