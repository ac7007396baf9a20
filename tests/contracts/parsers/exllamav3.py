"""ExLlamaV3's own flags (`model_init.add_args`), and the calls that our worker makes, against the real package's signatures.

The package imports without a GPU when a stand-in takes the place of its CUDA extension; no model is loaded, no token made. TabbyAPI is
on no package index: its config.yml is asked of a table of its keys, read from common/config_models.py of github.com/theroyallab/tabbyAPI
at commit e632af41eba68abeadc3437c62674360f2f8cbf1 (2026-08-13).
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import inspect
import io
import json
import re
import sys
import types
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

REQUIREMENTS = ["torch==2.13.0", "exllamav3==1.6.5", "triton==3.9.0"]

WORKERS = Path(__file__).resolve().parents[3] / "adapters" / "workers"
BITS = r"[2-8]\s*,\s*[2-8]"


def is_gpu_list(value: object) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) for each in value)


def one_of(*values: object) -> Callable[[object], bool]:
    return lambda value: value in values


def count(least: int, multiple: int = 1) -> Callable[[object], bool]:
    return lambda value: type(value) is int and value >= least and value % multiple == 0


def text(value: object) -> bool:
    return isinstance(value, str)


def switch(value: object) -> bool:
    return isinstance(value, bool)


TABBYAPI: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "network": {
        "host": text,
        "port": count(1),
        "disable_auth": switch,
        "sse_ping_interval": count(0),
        "api_servers": lambda value: isinstance(value, list) and all(str(each).lower() in ("oai", "kobold") for each in value),
    },
    "model": {
        "model_dir": text,
        "model_name": text,
        "backend": one_of("exllamav3"),
        "max_seq_len": count(-1),
        "cache_size": count(1, 256),
        "cache_mode": lambda value: value in ("FP16", "Q8", "Q6", "Q4") or bool(re.fullmatch(BITS, str(value))),
        "max_batch_size": count(1),
        "chunk_size": count(1),
        "output_chunking": switch,
        "tensor_parallel": switch,
        "tensor_parallel_backend": one_of("native", "nccl"),
        "gpu_split_auto": switch,
        "gpu_split": is_gpu_list,
        "cpu_moe_offload_layers": count(0),
    },
    "draft_model": {
        "draft_mode": one_of("model", "disabled", "mtp", "ngram"),
        "draft_num_tokens": count(1),
        "ngram_match_min": count(1),
    },
}
"""Section -> key -> whether its model accepts a value. Only the keys that an adapter may write; others are refused."""


def without_cuda() -> None:
    """Put a module whose every function returns None in the place of the compiled extension."""
    extension: Any = types.ModuleType("exllamav3_ext")
    extension.__getattr__ = lambda _name: lambda *_, **__: None
    extension.__file__ = "stand-in.so"
    extension.__spec__ = importlib.machinery.ModuleSpec(
        "exllamav3_ext", importlib.machinery.ExtensionFileLoader("exllamav3_ext", "stand-in.so"), origin="stand-in.so"
    )
    sys.modules["exllamav3_ext"] = extension


def bound(real: Any, result: Any) -> Callable[..., Any]:
    """Takes what the real function would take, TypeError otherwise, and returns `result`."""
    signature = inspect.signature(real)
    swallowed = {name for name, each in signature.parameters.items() if each.kind is each.VAR_KEYWORD}

    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        unknown = [key for name in swallowed for key in arguments.get(name, {})]
        if unknown:
            raise TypeError(f"{real.__qualname__} would ignore {', '.join(unknown)}")
        return result

    return call


def loads(backend: Any, flags: list[str], slots: int, gpus: int) -> None:
    """The worker's own code with the package's functions replaced by their signatures; its requests are real `Job`s."""
    from exllamav3 import Generator, Job, Tokenizer, model_init
    from exllamav3_scheduler import Ask

    args = backend.parse(flags)
    device = [SimpleNamespace(device=f"cuda:{index}") for index in range(gpus)]
    model = SimpleNamespace(loaded_tp=args.tensor_parallel, active_devices=list(range(gpus)), modules=device)
    encode = partial(bound(Tokenizer.encode, backend.torch.tensor([[1, 2]])), None)  # None: self
    tokenizer = SimpleNamespace(tokenizer_config_dict={}, encode=encode)
    loaded = (model, SimpleNamespace(), SimpleNamespace(), tokenizer, None, None, None)
    real_init, real_generator = model_init.init, backend.Generator
    generator = SimpleNamespace(enqueue=lambda _job: None, max_total_tokens=0)
    backend.model_init.init = bound(real_init, loaded)
    backend.Generator = partial(bound(Generator.__init__, generator), None)
    try:
        held = backend.Loaded(args, slots, gpus)
        held.generator(slots)
        request = backend.job(Ask(held.encode("text"), 8, ignore_eos=True, temperature=0.0, seed=1), (2,), 7)
        backend.enqueue(generator, request)
    finally:
        backend.model_init.init, backend.Generator = real_init, real_generator
    if not isinstance(request, Job) or request.identifier != 7 or request.stop_tokens:
        raise TypeError("a Job did not take the request")
    expected = {
        Generator: ("enqueue", "cancel", "iterate", "close", "num_active_jobs", "num_pending_jobs", "num_remaining_jobs"),
        Tokenizer: ("hf_chat_template",),
        request: ("cached_pages", "cached_tokens", "accepted_draft_tokens", "rejected_draft_tokens", "sequences"),
    }
    missing = [name for owner, names in expected.items() for name in names if not hasattr(owner, name)]
    if missing:
        raise TypeError(f"the package has no {', '.join(missing)}")
    answers(backend, request)


def answers(backend: Any, request: Any) -> None:
    """Eight tokens through the package's own `Job`, as a Generator would put them there, and what the worker reads out of them."""
    pieces = [""] * 5 + ["a"]
    tokenizer = SimpleNamespace(get_id_to_piece_list=lambda _special: pieces)
    drafts = {"max_draft_tokens": 0, "mtp_draft": False, "ngram_match_min": 0, "hybrid_draft_tokens": 0, "ngram_corpus": None}
    sizes = {
        "pagetable": SimpleNamespace(max_pages=4),
        "max_total_tokens": 1024,
        "max_batch_size": 1,
        "padded_vocab_size": 32,
        "recurrent_cache": None,
    }
    request.prepare_for_queue(SimpleNamespace(tokenizer=tokenizer, draft_model=None, **drafts, **sizes), 0)
    request.time_first_prefill = request.time_first_token = request.time_enqueue
    results: list[Mapping[str, Any]] = [{"job": request, "stage": "started", "eos": False}]
    for _ in range(request.max_new_tokens):
        request.receive_sample(None, backend.torch.tensor([[5]]), None, None, None, results)
    read = backend.pieces(results)
    usage = read[-1].usage
    counts = (usage.prompt, usage.cached, usage.output, read[-1].finish, usage.timings["predicted_n"])
    if [(each.request, each.text, each.tokens) for each in read] != [(7, "a", [5])] * 8 or counts != (2, 0, 8, "length", 8):
        raise TypeError(f"the worker reads {read} out of a Job's results")


def tabbyapi(argv: list[str], files: Mapping[str, str]) -> None:
    """Its command is `main.py --config FILE`; the file is the launch's own. ValueError for a key or a value that it would not take."""
    main, flag, path = argv
    if not main.endswith("/main.py") or flag != "--config":
        raise ValueError(f"TabbyAPI is started with main.py --config FILE, not {' '.join(argv)}")
    for section, keys in json.loads(files[Path(path).name]).items():
        for key, value in keys.items():
            if key not in TABBYAPI.get(section, {}):
                raise ValueError(f"{section}.{key} is no key of TabbyAPI's configuration")
            if not TABBYAPI[section][key](value):
                raise ValueError(f"{section}.{key} does not take {value!r}")


def judge(request: Mapping[str, Any], worker: Any, backend: Any) -> None:
    """Raises whatever the worker's or the package's own parser raises."""
    _python, script, *argv = request["argv"]
    if Path(script).name != "exllamav3_worker.py":
        raise ValueError(f"{script} is not our worker")
    args, rest = worker.arguments().parse_known_args(argv)
    if args.mode == "tabbyapi":
        tabbyapi(rest, request["files"])
    else:
        loads(backend, rest, args.slots, args.gpus)


def main() -> None:
    without_cuda()
    sys.path[0] = str(WORKERS)  # not this file's folder, where `exllamav3` is this file
    import exllamav3_backend as backend
    import exllamav3_worker as worker

    print(json.dumps({"engine": "exllamav3", "version": f"exllamav3 {backend.version.__version__}"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {"name": request["name"], "accepted": True}
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                judge(request, worker, backend)
        except SystemExit:  # argparse
            answer = {"name": request["name"], "accepted": False, "error": said.getvalue().rstrip().rpartition("\n")[2]}
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the verdict
            answer = {"name": request["name"], "accepted": False, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
