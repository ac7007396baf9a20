"""ExLlamaV3's own Generator as a `Backend` for the server and as a batch engine for the line protocol.

KV pages of equal prefixes are always shared: a batch gets a Generator of its own, without earlier pages; a server's prompts must differ in
their first page. Unverified, because ExLlamaV3 needs a GPU: its package 1.6.5 was imported with a stand-in for the CUDA extension.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from exllamav3 import Generator, Job, model_init, version
from exllamav3.constants import PAGE_SIZE
from exllamav3.generator.sampler import ComboSampler
from exllamav3_scheduler import Ask, Piece, Usage
from worker_protocol import Batch, Outcome, RequestOutcome, ScoreRequest, Scores
from worker_scores import of_logits

GIB = 1024**3


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="exllamav3_worker", allow_abbrev=False)
    model_init.add_args(parser, cache=True, add_draft_model_args=True)
    return parser.parse_args(argv)


class Loaded:
    """A model with its cache, for one Generator at a time."""

    def __init__(self, args: argparse.Namespace, slots: int, gpus: int) -> None:
        """slots: most requests in the batch. Raises RuntimeError when the weights are not on that number of devices."""
        self.args, self.slots = args, slots
        loaded = model_init.init(args, progress=False)
        self.model, self.config, self.cache, self.tokenizer, self.draft_model, _, self.draft_cache = loaded
        self.devices = _devices(self.model)
        if len(self.devices) != gpus:
            raise RuntimeError(
                f"the weights are on {', '.join(self.devices)}, not on {gpus} devices: "
                "an automatic split fills one before it uses the next; set how many GB each may take (-gs)"
            )

    def generator(self, batch: int) -> Any:
        """A Generator with an empty cache. It takes the cache of the previous one, which must be closed."""
        args = self.args
        return Generator(
            model=self.model, cache=self.cache, tokenizer=self.tokenizer, max_batch_size=batch, max_chunk_size=args.chunk_size,
            draft_model=self.draft_model, draft_cache=self.draft_cache, num_draft_tokens=args.num_draft_tokens,
            ngram_match_min=args.ngram_match_min, ngram_corpus=args.ngram_corpus, hybrid_draft_tokens=args.hybrid_draft_tokens,
            dynamic_draft_tokens=args.dynamic_draft, draft_confidence=args.draft_confidence, sparse_draft_head=args.sparse_draft_head,
            cpu_cache_size=int(args.cpu_cache_size * GIB), disk_cache_dir=args.disk_cache_dir,
            disk_cache_size=int(args.disk_cache_size * GIB), recurrent_cache_size=int(args.recurrent_cache_size * GIB),
        )  # fmt: skip

    def encode(self, text: str) -> list[int]:
        """With the beginning-of-text token, if the model has one and its tokenizer's settings do not disable it."""
        add_bos = (self.tokenizer.tokenizer_config_dict or {}).get("add_bos_token", True)
        ids: list[int] = self.tokenizer.encode(text, add_bos=add_bos, encode_special_tokens=True)[0].tolist()
        return ids

    def about(self) -> dict[str, object]:
        args, quantized = self.args, self.config.config_dict.get("quantization_config") or {}
        dtype = self.config.config_dict.get("dtype") or self.config.config_dict.get("torch_dtype")
        bits = quantized.get("bits")
        return {
            "version": version.__version__, "torch": torch.__version__, "cuda": torch.version.cuda,
            "devices": {device: torch.cuda.get_device_name(device) for device in self.devices}, "tensor_parallel": args.tensor_parallel,
            "architecture": self.config.architecture, "bits": bits if quantized.get("quant_method") == "exl3" else None,
            "head_bits": quantized.get("head_bits"), "codebook": quantized.get("codebook"), "dtype": dtype,
            "max_position_embeddings": self.config.max_position_embeddings, "cache_tokens": self.cache.max_num_tokens,
            "cache_bits": args.cache_quant, "slots": self.slots, "chunk_size": args.chunk_size, "prefix_cache": True,
            "moe_cpu_layers": args.moe_cpu_offload, "moe_cpu_experts": args.moe_cpu_split,
            "draft": "mtp" if args.mtp else "model" if args.draft_model_dir else "ngram" if args.ngram_match_min else None,
        }  # fmt: skip


def _devices(model: Any) -> list[str]:
    """The GPUs that hold weights. With tensor parallelism other processes hold them, and these are the loader's devices."""
    if model.loaded_tp:
        return [f"cuda:{index}" for index in model.active_devices]
    held = {str(module.device) for module in model.modules if module.device is not None}
    return sorted(device for device in held if device.startswith("cuda"))


def job(ask: Ask, stop: Sequence[int], identifier: int) -> Any:
    """A request in the Generator's form. stop: the model's end-of-text ids, unused where the length is forced."""
    return Job(
        input_ids=torch.tensor([list(ask.prompt)], dtype=torch.long),
        max_new_tokens=ask.max_tokens,
        sampler=ComboSampler(temperature=ask.temperature, min_p=ask.min_p, top_k=ask.top_k, top_p=ask.top_p),
        seed=ask.seed,
        stop_conditions=None if ask.ignore_eos else list(stop),
        identifier=identifier,
    )


def enqueue(generator: Any, request: Any) -> None:
    """Raises ValueError for a request that the cache can never hold; the Generator would silently shorten some of them."""
    asked = request.max_new_tokens
    try:
        generator.enqueue(request)
    except AssertionError as error:
        raise ValueError(str(error)) from None
    if request.max_new_tokens < asked:
        generator.cancel(request)
        raise ValueError(f"the KV cache of {generator.max_total_tokens} tokens cannot hold the prompt and {asked} tokens more")


def pieces(results: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """What `Generator.iterate` reports, except that a request was started or a part of its prompt was read."""
    return [_piece(result) for result in results if result["stage"] in ("streaming", "error")]


def _piece(result: Mapping[str, Any]) -> Piece:
    request = result["job"].identifier
    if result["stage"] == "error":
        error = result["error"]
        return Piece(request, finish="error", error=f"{type(error).__name__}: {error}")
    ids = result.get("token_ids")
    text, tokens = result.get("text", ""), [] if ids is None else ids.flatten().tolist()
    if not result["eos"]:
        return Piece(request, text, tokens)
    finish = "length" if result["eos_reason"] == "max_new_tokens" else "stop"
    # In ms, under llama.cpp's names where they mean the same: the generation time starts with the first token.
    seconds = {"queue_time_ms": "time_enqueued", "prompt_ms": "time_prefill", "predicted_ms": "time_generate"}
    timings = {**{name: result[key] * 1e3 for name, key in seconds.items()}, "predicted_n": result["new_tokens"]}
    usage = Usage(result["prompt_tokens"], result["cached_tokens"], result["new_tokens"], timings)
    return Piece(request, text, tokens, finish, usage)


class Serving:
    """The `Backend` of the server: one Generator for the life of the server."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._generator = loaded.generator(loaded.slots)
        self._jobs: dict[int, Any] = {}
        self._drafts = self._generator.max_draft_tokens > 0
        drafted = ("draft_tokens_total", "accepted_tokens_total") if self._drafts else ()
        self._totals: dict[str, float] = dict.fromkeys(("prompt_tokens_total", "cached_tokens_total", "output_tokens_total", *drafted), 0)
        self._about = loaded.about()

    def encode(self, text: str) -> list[int]:
        return self._loaded.encode(text)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        try:
            ids: list[int] = self._loaded.tokenizer.hf_chat_template(list(messages))[0].tolist()
        except Exception as error:  # a template is a program, and may raise anything
            raise ValueError(f"the model's chat template rejects them: {error}") from error
        return ids

    def enqueue(self, request: int, ask: Ask) -> None:
        made = job(ask, self._loaded.config.eos_token_id_list, request)
        enqueue(self._generator, made)
        self._jobs[request] = made

    def cancel(self, request: int) -> None:
        made = self._jobs.pop(request)
        if made in self._generator.active_jobs:
            self._count(len(made.sequences[0].input_ids), made.cached_pages * PAGE_SIZE + made.cached_tokens)
        self._count_drafts(made)
        self._generator.cancel(made)

    def step(self) -> list[Piece]:
        made = pieces(self._generator.iterate())
        for piece in made:
            self._totals["output_tokens_total"] += len(piece.tokens)
            if piece.finish:
                self._count_drafts(self._jobs.pop(piece.request))
            if piece.usage:
                self._count(piece.usage.prompt, piece.usage.cached)
        return made

    def _count_drafts(self, ended: Any) -> None:
        if self._drafts:
            self._totals["accepted_tokens_total"] += ended.accepted_draft_tokens
            self._totals["draft_tokens_total"] += ended.accepted_draft_tokens + ended.rejected_draft_tokens

    def _count(self, prompt: int, cached: int) -> None:
        self._totals["prompt_tokens_total"] += prompt
        self._totals["cached_tokens_total"] += cached

    def gauges(self) -> Mapping[str, float]:
        generator = self._generator
        pages = generator.pagetable
        now = {"running": generator.num_active_jobs(), "waiting": generator.num_pending_jobs()}
        return {**self._totals, **now, "kv_use": len(pages.referenced_pages) / pages.max_pages}

    def about(self) -> Mapping[str, object]:
        return self._about

    def close(self) -> None:
        self._generator.close()
        self._loaded.model.unload()


class Offline:
    """Batches without HTTP: one model load, and for each batch a Generator with an empty cache, created outside its window."""

    def __init__(self, loaded: Loaded, route: str) -> None:
        """route: where the server reports what `about` returns."""
        self._loaded = loaded
        self.version = str(version.__version__)
        self.resolved: Mapping[str, object] = {route: loaded.about()}

    def run(self, batch: Batch) -> Outcome:
        batch.check_limit(self._loaded.slots)
        prompts = [self._loaded.encode(prompt) if isinstance(prompt, str) else prompt for prompt in batch.prompts]
        asks = [Ask(ids, batch.output_tokens, ignore_eos=True, temperature=batch.temperature, seed=batch.seed) for ids in prompts]
        generator = self._loaded.generator(batch.batch)
        counted = [RequestOutcome(len(ask.prompt), 0, token_ns=[]) for ask in asks]
        try:
            start = time.monotonic_ns()
            for index, ask in enumerate(asks):
                enqueue(generator, job(ask, (), index))
            while generator.num_remaining_jobs():
                made = pieces(generator.iterate())
                now = time.monotonic_ns()
                for piece in made:
                    counted[piece.request] = _more(counted[piece.request], piece, now)
            return Outcome(start, time.monotonic_ns(), counted)
        finally:
            generator.close()

    def score(self, request: ScoreRequest) -> Scores:
        """The model's own forward pass without a cache, as ExLlamaV3's evaluation does it."""
        ids = torch.tensor([request.ids], dtype=torch.long)
        with torch.inference_mode():
            logits = self._loaded.model.forward(ids, {"attn_mode": "flash_attn_nc"})
            return of_logits(logits[0, :, : self._loaded.tokenizer.actual_vocab_size], request)


def _more(so_far: RequestOutcome, piece: Piece, now_ns: int) -> RequestOutcome:
    stamps = [*(so_far.token_ns or ()), *[now_ns] * len(piece.tokens)]
    return RequestOutcome(so_far.input_tokens, len(stamps), piece.error or None, stamps, piece.usage.cached if piece.usage else None)
