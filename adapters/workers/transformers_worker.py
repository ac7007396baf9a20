"""Transformers' own server (`serve`) and its own continuous batching (`offline`), which report the experts implementation that ran.

`transformers serve` has no flag for the experts implementation, for prefix sharing or for the number of requests in a batch, so `serve`
builds the same app out of the same parts, sets those three, and adds three routes: GET /enginebench (the live model's configuration), GET
/enginebench/counters (the state of its batch) and POST /enginebench/scores (log-probabilities of given tokens). Under torchrun every rank
runs this script: rank 0 serves or batches, the others follow it.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
import uvicorn
from huggingface_hub.constants import HF_HUB_CACHE
from transformers.cli.serving import chat_completion
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.response import ResponseHandler
from transformers.cli.serving.server import build_server
from transformers.cli.serving.systemone import SystemOneHandler
from transformers.cli.serving.transcription import TranscriptionHandler
from transformers.cli.serving.utils import GenerationState
from transformers_flags import parser
from transformers_model import RANK, ExpertsObserver, Loader, PrefixObserver, Ranks, need_paged_cache, weights
from transformers_speculation import Assisted, asked
from worker_protocol import Batch, Outcome, Prompt, RequestOutcome, ScoreRequest, Scores, run_worker
from worker_scores import of_logits

ROUTE = "/enginebench"
CB_FIELDS = (
    "page_size", "num_blocks", "max_batch_tokens", "max_memory_percent", "max_requests_per_batch", "use_cuda_graph",
    "use_async_batching", "default_compile_level",
)  # fmt: skip


class Engine:
    def __init__(self, args: argparse.Namespace) -> None:
        if "@" in args.model and Path(args.model).exists():
            raise ValueError(f"transformers reads '@' in {args.model} as a revision; use a path without it")
        self.args = args
        self.loader = Loader(args)
        self.model, processor = self.loader.load_model_and_processor(self.loader.process_model_name(args.model))
        need_paged_cache(self.model)
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.experts, self.prefixes = ExpertsObserver(), PrefixObserver()
        if args.experts_implementation:
            self.model.set_experts_implementation(args.experts_implementation)  # raises for a model without that choice
        self.ranks = Ranks(self.model)
        self.batching = self.batching_config()
        self._manager: Any = None
        if RANK == 0:
            self._start_batching = self.model.init_continuous_batching
            self.model.init_continuous_batching = self._init_continuous_batching

    def _init_continuous_batching(self, **arguments: Any) -> Any:
        """The model's own method, run on all ranks; keeps the configuration that it resolved."""
        self.ranks.broadcast("init", arguments)
        self._manager = self.ranks.lead(self._start_batching(**arguments))
        self.batching = self._manager.continuous_batching_config  # a copy with transformers' values for what was not set
        return self._manager

    def batching_config(self, **changes: Any) -> Any:
        """The continuous batching configuration of the flags; transformers decides what they leave out."""
        given = {name: getattr(self.args, f"cb_{name}") for name in CB_FIELDS}
        chosen = {name: value for name, value in given.items() if value is not None}
        # Keep an attention kernel that the flags name; otherwise transformers may use flash attention instead.
        fixed = {"allow_block_sharing": self.args.prefix_cache, "auto_switch_to_flash": self.args.attn_implementation is None}
        return transformers.ContinuousBatchingConfig(**(fixed | chosen | changes))

    def counters(self) -> dict[str, float]:
        """The batch now, and tokens found in the prefix cache so far, under neutral names; {} until there is a batch."""
        processor = getattr(self._manager, "batch_processor", None)
        if processor is None:
            return {}
        waiting = len(processor.scheduler.waiting_requests) + self._manager.input_queue.qsize()
        cache = processor.cache
        used = 1 - cache.pool.num_free_sectors / cache.num_sectors
        now = {"running": len(processor.scheduler.active_requests), "waiting": waiting, "kv_use": used}
        return now | {"cached_tokens": sum(self.prefixes.found.values())}

    def scores(self, request: ScoreRequest) -> Scores:
        """One forward pass of the loaded model over the window, beside continuous batching, which returns no logits of a prompt."""
        if self.args.tp > 1:
            raise ValueError("the other ranks of a sharded model follow continuous batching only")
        paged = self.model.config._attn_implementation == "paged|eager"  # noqa: SLF001  # that kernel only works in the batch
        if paged:
            self.model.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                ids = torch.tensor([request.ids], device=self.model.device)
                return of_logits(self.model(input_ids=ids, use_cache=False).logits[0], request)
        finally:
            if paged:
                self.model.set_attn_implementation("paged|eager")

    def score(self, asked: dict[str, Any]) -> Scores:
        """The same for the body of a POST request."""
        return self.scores(ScoreRequest(asked["ids"], asked["first"], asked.get("top", 0)))

    def resolved(self) -> dict[str, object]:
        """The live model and its batching; experts_ran is empty until the first generation."""
        processor = getattr(self._manager, "batch_processor", None)
        # What the batch got, once there is one: transformers rounds, and sizes by memory what is not set.
        got = {name: getattr(processor.cache, name) for name in ("num_blocks", "max_batch_tokens")} if processor is not None else {}
        return {
            "version": transformers.__version__,
            "torch": torch.__version__,
            "model": self.args.model,
            "weights": weights(self.model),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "threads": torch.get_num_threads(),
            "attn_implementation": self.model.config._attn_implementation,  # noqa: SLF001  # there is no public getter
            "experts_implementation": self.model.get_experts_implementation(),
            "experts_ran": sorted(self.experts.ran),
            "max_position_embeddings": getattr(self.model.config.get_text_config(), "max_position_embeddings", None),
            "parallelism": {"tp": self.args.tp, "ep": self.args.ep, "pp": self.args.pp},
            "prefix_cache": self.batching.allow_block_sharing,
            "continuous_batching": {name: getattr(self.batching, name) for name in CB_FIELDS} | got,
        }


def serve(engine: Engine, host: str, port: int) -> int:
    """What `transformers serve --continuous-batching` runs, plus our routes. The port opens when the model is loaded."""
    Path(HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)  # /v1/models lists it, and fails without it
    # Its parser may stream the end of the prompt before the first token, and a client would take that for the first token.
    chat_completion.build_response_parser = lambda *_, **__: None
    manager, state = engine.loader, GenerationState(continuous_batching=True, cb_config=engine.batching)
    if not state.use_continuous_batching(engine.model, manager.get_model_modality(engine.model, processor=engine.tokenizer)):
        raise ValueError(f"{type(engine.model).__name__} has no continuous batching: requests would run one at a time")
    parts = (chat_completion.ChatCompletionHandler, CompletionHandler, ResponseHandler, TranscriptionHandler)
    handlers = [part(manager, state) for part in parts]
    app = build_server(manager, *handlers, SystemOneHandler(manager, state), state)
    app.get(ROUTE)(engine.resolved)
    app.get(f"{ROUTE}/counters")(engine.counters)
    app.post(f"{ROUTE}/scores")(engine.score)
    # On SIGTERM cut the streams in flight at once; by default uvicorn waits for them forever.
    uvicorn.run(app, host=host, port=port, access_log=False, timeout_graceful_shutdown=0)
    return 0


class Offline:
    """Continuous batching without HTTP: one model load, a new batching manager per load, built outside the window."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.version = str(transformers.__version__)
        self._engine = Engine(args)
        self._limit = args.cb_max_requests_per_batch
        self._assisted = Assisted(args, self._engine.model) if asked(args) else None
        # One generation first, so that `resolved` reports what ran.
        self.run(Batch([[1, 1]], output_tokens=2, batch=self._limit or 1))
        self.resolved: Mapping[str, object] = {ROUTE: self._engine.resolved()}

    def run(self, batch: Batch) -> Outcome:
        """generate_batch with a narrower window: its own includes building the KV cache and stopping the thread."""
        if self._assisted is not None:
            return self._assisted.run(batch, self._ids)
        if self._limit is not None:
            batch.check_limit(self._limit)
        prompts = [self._ids(prompt) for prompt in batch.prompts]
        greedy = batch.temperature == 0.0
        sampling: dict[str, object] = {} if greedy else {"temperature": batch.temperature, "top_k": 0, "top_p": 1.0}
        generation = transformers.GenerationConfig(
            max_new_tokens=batch.output_tokens, eos_token_id=-1, do_sample=not greedy, use_cache=False, **sampling
        )
        config = self._engine.batching_config(max_requests_per_batch=batch.batch, seed=batch.seed)
        configs = {"generation_config": generation, "continuous_batching_config": config}
        session = self._engine.model.continuous_batching_context_manager(**configs, block=True, timeout=5)
        with session as manager:
            _collect(manager, manager.add_requests(prompts[:1], max_new_tokens=1))  # the thread builds its cache at the first request
            start = time.monotonic_ns()
            outputs = _collect(manager, manager.add_requests(prompts, max_new_tokens=batch.output_tokens, record_timestamps=True))
            end, found = time.monotonic_ns(), self._engine.prefixes.found
            return Outcome(start, end, [_outcome(output, found.get(output.request_id, 0)) for output in outputs])

    def _ids(self, prompt: Prompt) -> list[int]:
        return prompt if isinstance(prompt, list) else list(self._engine.tokenizer(prompt)["input_ids"])

    def score(self, request: ScoreRequest) -> Scores:
        return self._engine.scores(request)


def _collect(manager: Any, ids: Sequence[str]) -> list[Any]:
    """The finished outputs of these requests, in order. Raises RuntimeError when the generation thread has ended."""
    done: dict[str, Any] = {}
    while len(done) < len(ids):
        output = manager.get_result(timeout=1)
        if output is not None and output.is_finished():
            done[output.request_id] = output
        elif output is None and not manager.is_running():
            raise RuntimeError(f"the generation thread ended: {manager.background_thread_status.fatal_error}")
    return [done[each] for each in ids]


def _outcome(output: Any, cached: int) -> RequestOutcome:
    shift = time.monotonic_ns() - time.perf_counter_ns()  # transformers stamps tokens with perf_counter, the same clock on Linux
    stamps = [int(stamp * 1e9) + shift for stamp in output.timestamps or ()]
    return RequestOutcome(len(output.prompt_ids), len(output.generated_tokens), output.error, stamps or None, cached)


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if RANK > 0:
        Engine(args).ranks.follow()
        return 0
    if args.mode == "offline":
        return run_worker(lambda: Offline(args))
    return serve(Engine(args), args.host, args.port)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
