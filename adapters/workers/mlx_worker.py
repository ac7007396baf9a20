"""mlx-lm's own server (`serve`) and its own continuous batching (`offline`), with output of exactly the length asked for.

Takes the flags of `mlx_lm.server`, through its own parser. It adds: a model whose end-of-sequence tokens end nothing (a logit bias per
request would process every step of the batch one sequence at a time), a /health that answers 200 only when the model is loaded, an exit of
the process when the thread that loads and generates fails, and the routes GET /enginebench with the live model's configuration
and POST /enginebench/scores with the log-probabilities of given tokens.
"""

import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import ThreadingHTTPServer
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm import __version__, server
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import LRUPromptCache
from mlx_lm.sample_utils import make_sampler
from worker_protocol import Batch, Outcome, RequestOutcome, ScoreRequest, Scores, run_worker
from worker_scores import finite, pairs

ROUTE, COUNTERS = "/enginebench", "/enginebench/counters"
DRAFTED: Counter[str] = Counter()
"""Totals of speculative decoding under the harness's names, which mlx-lm does not keep; empty without a draft model."""


class Provider(server.ModelProvider):  # type: ignore[misc]  # mlx-lm has no types
    """The one model of this launch; no end-of-sequence token of it ends a generation."""

    ready = False

    def _load(self, *names: Any, **others: Any) -> None:
        super()._load(*names, **others)
        self.tokenizer.eos_token_ids = ()

    def load_default(self) -> None:
        super().load_default()
        self.ready = True

    def resolved(self) -> dict[str, object]:
        """The live model and what it is served with; {} before it is loaded."""
        if not self.ready:
            return {}
        args = self.cli_args
        return {
            "version": __version__, "mlx": mx.__version__, "device": str(mx.default_device()), "model": args.model,
            "dtype": common_dtype(self.model), "quantization": sorted(quantizations(self.model)),
            "max_position_embeddings": getattr(self.model.args, "max_position_embeddings", None),
            "batchable": self.is_batchable and args.kv_bits is None, "decode_concurrency": args.decode_concurrency,
            "prompt_concurrency": args.prompt_concurrency, "prefill_step_size": args.prefill_step_size,
            "prompt_cache_size": args.prompt_cache_size, "kv_bits": args.kv_bits,
        }  # fmt: skip


def common_dtype(model: Any) -> str:
    """The floating dtype of most of the model's bytes, without mlx's prefix: 'bfloat16'."""
    sizes: Counter[str] = Counter()
    for _, array in tree_flatten(model.parameters()):
        if mx.issubdtype(array.dtype, mx.floating):
            sizes[str(array.dtype).rpartition(".")[2]] += array.nbytes
    return sizes.most_common(1)[0][0] if sizes else "none"


def quantizations(model: Any) -> set[str]:
    """How layers are quantized, as 'affine 4 64' (mode, bits, weights in a group); empty for an unquantized model."""
    layers = (layer for _, layer in model.named_modules() if hasattr(layer, "bits"))
    return {f"{getattr(layer, 'mode', 'affine')} {layer.bits} {layer.group_size}" for layer in layers}


def counted(steps: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """mlx-lm's `speculative_generate_step` with a count of what it proposes and keeps. A step yields its accepted tokens, then one of the
    model's own, and proposes as many as `num_draft_tokens` or as are missing."""
    DRAFTED.update(dict.fromkeys(("drafts", "draft_tokens", "accepted_tokens"), 0))

    def stepping(*args: Any, num_draft_tokens: int, max_tokens: int, **others: Any) -> Iterator[Any]:
        made, accepted, starts = 0, 0, True
        for token, probabilities, drafted in steps(*args, num_draft_tokens=num_draft_tokens, max_tokens=max_tokens, **others):
            if starts and (proposed := min(max_tokens - made, num_draft_tokens)) > 0:
                DRAFTED.update({"drafts": 1, "draft_tokens": proposed})
            made, accepted, starts = made + 1, (accepted + 1) * drafted, not drafted
            if drafted:
                DRAFTED.update({"accepted_tokens": 1, f"accepted_at_{accepted}": 1})
            yield token, probabilities, drafted

    return stepping


def scores(model: Any, request: ScoreRequest) -> Scores:
    """One forward pass of the model over the window, without a cache; the softmax is in f32."""
    logits = model(mx.array([request.ids]))[0].astype(mx.float32)
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    rows = logprobs[request.first - 1 : len(request.ids) - 1]
    own = mx.take_along_axis(rows, mx.array(request.ids[request.first :])[:, None], axis=1)[:, 0]
    if not request.top:
        return {"logprobs": [finite(each) for each in own.tolist()], "top": []}
    best = mx.argsort(-rows, axis=-1)[:, : request.top]
    values = mx.take_along_axis(rows, best, axis=1)
    top = [pairs(*row) for row in zip(best.tolist(), values.tolist(), strict=True)]
    return {"logprobs": [finite(each) for each in own.tolist()], "top": top}


class Generator(server.ResponseGenerator):  # type: ignore[misc]  # mlx-lm has no types
    """Healthy only when the model is loaded; the server's own check is that the loading thread is alive."""

    def _run_generate(self) -> None:
        """Exit when the thread fails: the server would go on, and never answer the requests in flight."""
        try:
            self._generate()
        except Exception:  # noqa: BLE001  # whatever it is, nothing can be served any more
            traceback.print_exc()
            os._exit(1)

    @property
    def is_healthy(self) -> bool:
        return bool(super().is_healthy) and self.model_provider.ready


class Handler(server.APIHandler):  # type: ignore[misc]  # mlx-lm has no types
    def do_GET(self) -> None:  # noqa: N802  # http.server's name
        if self.path not in (ROUTE, COUNTERS):
            super().do_GET()
            return
        self._set_completion_headers(200)
        self.end_headers()
        answer = self.response_generator.model_provider.resolved() if self.path == ROUTE else DRAFTED
        self.wfile.write(json.dumps(answer).encode())

    def do_POST(self) -> None:  # noqa: N802  # http.server's name
        if self.path != f"{ROUTE}/scores":
            super().do_POST()
            return
        try:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = ScoreRequest(asked["ids"], asked["first"], asked.get("top", 0))
            status, reply = 200, scores(self.response_generator.model_provider.model, request)
        except Exception as error:  # noqa: BLE001  # whatever it is, the client is told
            status, reply = 500, {"error": f"{type(error).__name__}: {error}"}
        self._set_completion_headers(status)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())


class Http(ThreadingHTTPServer):
    """A longer backlog than http.server's five: a load opens more at once, and Linux takes a second to retry each."""

    request_queue_size = 1024


def serve(provider: Provider) -> int:
    args = provider.cli_args
    generator = Generator(provider, LRUPromptCache(args.prompt_cache_size))
    server._run_http_server(args.host, args.port, generator, server_class=Http, handler_class=Handler)  # noqa: SLF001  # `run` drops both
    return 0


class Offline:
    """Continuous batching without HTTP: one model load, a new batch generator per load, built outside the window."""

    def __init__(self, provider: Provider) -> None:
        provider.load_default()
        self.version = str(__version__)
        self._provider = provider
        self.resolved: Mapping[str, object] = {ROUTE: provider.resolved()}

    def run(self, batch: Batch) -> Outcome:
        """mlx-lm's batch_generate with a time stamp for each token; prompts beyond the batch wait inside mlx-lm."""
        args, model, tokenizer = self._provider.cli_args, self._provider.model, self._provider.tokenizer
        batch.check_limit(args.decode_concurrency)
        prompts = [prompt if isinstance(prompt, list) else tokenizer.encode(prompt) for prompt in batch.prompts]
        mx.random.seed(batch.seed)
        generator = BatchGenerator(
            model,
            sampler=make_sampler(batch.temperature),
            completion_batch_size=batch.batch,
            prefill_batch_size=min(args.prompt_concurrency, batch.batch),
            prefill_step_size=args.prefill_step_size,
        )
        start = time.monotonic_ns()
        stamps: dict[int, list[int]] = {uid: [] for uid in generator.insert(prompts, [batch.output_tokens] * len(prompts))}
        while responses := generator.next_generated():
            now = time.monotonic_ns()
            for response in responses:
                stamps[response.uid].append(now)
        end = time.monotonic_ns()
        generator.close()
        outcomes = [RequestOutcome(len(prompt), len(times), token_ns=times) for prompt, times in zip(prompts, stamps.values(), strict=True)]
        return Outcome(start, end, outcomes)

    def score(self, request: ScoreRequest) -> Scores:
        return scores(self._provider.model, request)


def main(argv: Sequence[str]) -> int:
    """`mlx_worker.py serve|offline FLAGS`: the server's own `main` parses the flags and calls whatever has these names."""
    mode, *flags = argv
    code = 0

    def run(_host: str, _port: int, provider: Provider) -> None:
        nonlocal code
        if provider.cli_args.draft_model is not None:
            generation: Any = sys.modules[BatchGenerator.__module__]  # mlx_lm.generate is a function, and hides its module
            generation.speculative_generate_step = counted(generation.speculative_generate_step)
        code = serve(provider) if mode == "serve" else run_worker(lambda: Offline(provider))

    server.ModelProvider, server.run = Provider, run
    sys.argv = ["mlx_lm.server", *flags]
    server.main()
    return code


if __name__ == "__main__":
    if sys.argv[1:2] not in (["serve"], ["offline"]):
        sys.exit("usage: mlx_worker.py serve|offline FLAGS, the flags of mlx_lm.server")
    sys.exit(main(sys.argv[1:]))
