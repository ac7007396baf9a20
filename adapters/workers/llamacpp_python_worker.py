"""llama-cpp-python's in-process API, `Llama.generate`, one sequence at a time, because it has no batches.

Takes llama_cpp.server's own flags, so one argv fits both.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

import llama_cpp
from worker_protocol import Batch, Outcome, Prompt, RequestOutcome, run_worker


def parser() -> argparse.ArgumentParser:
    """The part of llama_cpp.server's command line that `Llama` has keywords for; flags that are not given are not in the result."""
    p = argparse.ArgumentParser(prog="llamacpp_python_worker", allow_abbrev=False, argument_default=argparse.SUPPRESS)
    p.add_argument("--model", required=True)
    p.add_argument("--model_alias", default="model")
    for flag in ("n_ctx", "n_gpu_layers", "n_threads", "n_threads_batch", "n_batch", "n_ubatch"):
        p.add_argument(f"--{flag}", type=int)
    for flag in ("logits_all", "offload_kqv", "flash_attn"):
        p.add_argument(f"--{flag}", type={"true": True, "false": False}.__getitem__)
    return p


class Offline:
    """A loaded `Llama`, with its configuration in the form of llama-server's routes."""

    def __init__(self, args: argparse.Namespace) -> None:
        keywords = {name: value for name, value in vars(args).items() if name not in ("model", "model_alias")}
        self._llama = llama_cpp.Llama(args.model, verbose=False, **keywords)
        self.version = str(llama_cpp.__version__)
        props = {"model_alias": args.model_alias, "total_slots": 1, "default_generation_settings": {"n_ctx": self._llama.n_ctx()}}
        system = llama_cpp.llama_print_system_info().decode()
        metadata: Mapping[str, Any] = {name: value for name, value in self._llama.metadata.items() if name.startswith("general.")}
        self.resolved: Mapping[str, object] = {"/props": props | {"system_info": system, "metadata": metadata}}
        self._generate([0], Batch([[0]], output_tokens=1, batch=1))  # llama-server warms up too

    def run(self, batch: Batch) -> Outcome:
        """One prompt after another. `batch` above 1 is an error: it would be a queue."""
        if batch.batch > 1:
            raise ValueError(f"batch {batch.batch}: llama-cpp-python runs one sequence at a time")
        self._llama.set_seed(batch.seed)
        start = time.monotonic_ns()
        requests = [self._generate(prompt, batch) for prompt in batch.prompts]
        return Outcome(start, time.monotonic_ns(), requests)

    def _generate(self, prompt: Prompt, batch: Batch) -> RequestOutcome:
        tokens = prompt if isinstance(prompt, list) else self._llama.tokenize(prompt.encode(), special=True)
        self._llama.reset()  # otherwise a prefix shared with the last prompt would not be computed
        held = self._llama.n_tokens  # left of the last prompt: all that `generate` could reuse
        # `generate` does not stop at an end of text, which forces the length.
        endless = self._llama.generate(tokens, temp=batch.temperature, top_k=0, top_p=1.0, min_p=0.0)
        stamps = [time.monotonic_ns() for _ in islice(endless, batch.output_tokens)]
        return RequestOutcome(len(tokens), len(stamps), None, stamps, cached_tokens=held)


if __name__ == "__main__":
    chosen = parser().parse_args()
    sys.exit(run_worker(lambda: Offline(chosen)))
