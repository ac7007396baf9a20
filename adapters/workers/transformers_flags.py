"""The command line of the transformers worker: `transformers serve`'s own spelling wherever it has the flag. Imports no engine."""

import argparse


def parser() -> argparse.ArgumentParser:
    """`serve|offline MODEL FLAGS`; the help says which flags `transformers serve` does not have."""
    p = argparse.ArgumentParser(prog="transformers_worker", allow_abbrev=False)
    p.add_argument("mode", choices=("serve", "offline"))
    p.add_argument("model")
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument("--port", type=int, default=8000)
    p.add_argument("--device", default="auto", help="auto: one accelerator where there is one, else the CPU")
    p.add_argument("--dtype", default="auto")
    p.add_argument("--attn-implementation")
    p.add_argument("--experts-implementation", help="not in `transformers serve`")
    p.add_argument("--prefix-cache", action="store_true", help="not in `transformers serve`, where it is always on")
    p.add_argument("--load-format", choices=("auto", "dummy"), default="auto", help="not in `transformers serve`; dummy: random weights")
    p.add_argument("--loading-workers", type=int, help="not in `transformers serve`: threads that read weights")
    p.add_argument("--dequantize", action="store_true", help="not in `transformers serve`: expand MXFP4 weights while loading")
    p.add_argument("--tp", type=int, default=1, help="not in `transformers serve`: ranks, started by torchrun, that share each layer")
    p.add_argument("--ep", type=int, default=1, help="not in `transformers serve`: ranks that share the experts of a layer")
    p.add_argument("--pp", type=int, default=1, help="not in `transformers serve`: devices that hold whole layers and work in turn")
    p.add_argument("--assistant-model", help="not in `transformers serve`, which has no speculation: a draft model, offline only")
    p.add_argument("--num-assistant-tokens", type=int, help="tokens that it proposes per step")
    p.add_argument("--prompt-lookup-num-tokens", type=int, help="tokens that are proposed from earlier text, offline only")
    p.add_argument("--max-matching-ngram-size", type=int, help="tokens at the end of the text that are looked up")
    p.add_argument("--cb-page-size", type=int, help="--cb-block-size of `transformers serve`, under its newer name")
    p.add_argument("--cb-num-blocks", type=int)
    p.add_argument("--cb-max-batch-tokens", type=int)
    p.add_argument("--cb-max-memory-percent", type=float)
    p.add_argument("--cb-max-requests-per-batch", type=int, help="not in `transformers serve`")
    p.add_argument("--cb-use-cuda-graph", action=argparse.BooleanOptionalAction)
    p.add_argument("--cb-use-async-batching", action=argparse.BooleanOptionalAction, help="not in `transformers serve`")
    p.add_argument("--cb-default-compile-level", type=int, help="not in `transformers serve`")
    return p
