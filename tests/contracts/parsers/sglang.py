"""Hands every command line to SGLang's own parser, and resolves what it parsed for a CUDA device, as its server does before it starts.

Resolution is where SGLang refuses combinations and changes values on its own, so a command line is accepted when it parses, resolves,
and means what it says: every flag that was written must still have its value afterwards. Packages that exist for GPUs only are replaced
by stand-ins that can be imported and no more; the checkpoint is the configuration of a tiny Mixture-of-Experts model.

Knows nothing of kernels: what only fails on a device is not seen here.
"""

# (the engine is installed in an environment of its own, not in the harness's)
import argparse
import contextlib
import importlib.machinery
import io
import json
import logging
import os
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import ClassVar

REQUIREMENTS = [
    "torch==2.13.0",
    "transformers==5.19.0",
    "triton==3.9.0",
    "aiohttp==3.14.5",
    "compressed-tensors==0.18.0",
    "dill==0.4.1",
    "gguf==0.19.0",
    "ipython==9.18.1",
    "msgspec==0.22.0",
    "orjson==3.13.0",
    "pillow==13.0.0",
    "psutil==7.2.2",
    "pybase64==1.5.1",
    "pyzmq==27.3.0",
    "requests==2.34.2",
    "sentencepiece==0.2.3",
    "starlette==1.10.0",
]
NO_DEPS = ["sglang==0.5.23"]

STAND_INS = {"torchvision", "tvm_ffi", "sgl_kernel", "flashinfer"}
SERVER = "sglang.launch_server"
WORKER = "sglang_worker.py"

MODEL = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "dtype": "bfloat16", "vocab_size": 1024,
    "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32,
    "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 128, "intermediate_size": 512, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "norm_topk_prob": True, "max_position_embeddings": 1 << 20, "rms_norm_eps": 1e-6,
}  # fmt: skip

CHANGED = {
    "model_path", "speculative_draft_model_path",  # named differently here
    "chunked_prefill_size",  # attention DP shares it out, which the adapter says in a note
    "speculative_algorithm",  # NEXTN is another name of EAGLE
    "lora_paths",  # each gets an id
    "served_model_name", "host", "port",
}  # fmt: skip


class Anything(type):
    """A class that has every attribute, and can be called, decorated with and joined with others."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})

    def __call__(cls, *args, **kwargs):
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else cls

    def __or__(cls, other):
        return cls

    __ror__ = __or__


class StandIn(types.ModuleType):
    """A module that has every attribute."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


class StandIns:
    """A finder for STAND_INS. Asked last, after everything that is really there."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in STAND_INS else None

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


def resolve(argv: list[str]) -> None:
    """Parse and resolve one command line. Raises whatever SGLang raises; ValueError for a value that is another one afterwards."""
    from sglang.srt.server_args import ServerArgs, prepare_server_args

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    flags = {flag: action.dest for action in parser._actions for flag in action.option_strings}
    words = {word for word in argv if word.startswith("--")}
    if words - flags.keys():  # before argparse guesses what an abbreviation stands for
        raise ValueError(f"no flags of SGLang: {', '.join(sorted(words - flags.keys()))}")
    parsed, written = vars(parser.parse_args(argv)), {flags[word] for word in words}
    args = prepare_server_args([*argv, "--device", "cuda"])  # the platform is asked otherwise, and there is none
    args.resolve_once()
    args.check_server_args()
    resolved = args.resolved_dict()
    changed = [name for name in sorted(written - CHANGED) if name in resolved and resolved[name] != parsed[name]]
    if changed:
        raise ValueError("; ".join(f"{name} {parsed[name]!r} became {resolved[name]!r}" for name in changed))


def engine_argv(argv: list[str]) -> list[str] | None:
    """What follows the program's name; None for a program that is not SGLang's (the proxy in front of a pair)."""
    places = [place for place, word in enumerate(argv) if word == SERVER or word.endswith(WORKER)]
    return argv[places[0] + 1 :] if places else None


def complaint(request: dict, folder: Path) -> str | None:
    """What SGLang says against the commands and variables of one deployment, the members' too; None for nothing."""
    from sglang.srt.environ import envs

    parts = (request, *request["members"])
    unknown = {name for part in parts for name in part["env"] if name.startswith("SGLANG_") and not hasattr(envs, name)}
    if unknown:
        return f"no variables of SGLang: {', '.join(sorted(unknown))}"
    asked = [argv for part in parts if (argv := engine_argv(part["argv"])) is not None]
    said = io.StringIO()
    try:
        for argv in asked:
            with contextlib.redirect_stderr(said):
                resolve([str(folder) if word.startswith("/site/") else word for word in argv])
    except SystemExit:
        return said.getvalue().strip().splitlines()[-1]
    except Exception as error:  # noqa: BLE001  # whatever it raises is its answer
        return f"{type(error).__name__}: {error or traceback.extract_tb(error.__traceback__)[-1].line}"
    return None if asked else "no command of SGLang in it"


def main() -> int:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # SGLang prints
    sys.path.remove(str(Path(__file__).resolve().parent))  # this file has the package's name
    import sglang

    sys.meta_path.append(StandIns())
    print(json.dumps({"engine": "sglang", "version": sglang.__version__}), file=out)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL), encoding="utf-8")
        for line in sys.stdin:
            request = json.loads(line)
            error = complaint(request, Path(folder))
            answer = {"name": request["name"], "accepted": error is None}
            print(json.dumps(answer if error is None else answer | {"error": error}), file=out)
    return 0


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    sys.exit(main())
