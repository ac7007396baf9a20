"""The transformers worker's flags, and what it makes of them against the real classes of transformers: no model is loaded.

Asked are ContinuousBatchingConfig, DistributedConfig, Mxfp4Config, torch's dtypes, the registered experts implementations, the model
manager's attention implementations, and torchrun's own parser.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

REQUIREMENTS = ["torch==2.13.0", "transformers[serving]==5.23.0"]

WORKERS = Path(__file__).resolve().parents[3] / "adapters" / "workers"
sys.path[0] = str(WORKERS)  # instead of this folder, in which this file is called like the package that it asks
VARIABLES = ("HF_DEACTIVATE_ASYNC_LOAD", "HF_HUB_OFFLINE", "HF_HOME", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS")
CB = "cb_"


def torchrun(argv: Sequence[str]) -> list[str]:
    """The script and its arguments that torchrun's own parser finds. ValueError when it is not our worker."""
    from torch.distributed.run import get_args_parser  # type: ignore[import-not-found,unused-ignore]

    parsed = get_args_parser().parse_args(list(argv))
    ranks = int(parsed.nproc_per_node)
    if f"--tp {ranks} " not in " ".join(parsed.training_script_args):
        raise ValueError(f"{ranks} processes for another number of ranks")
    return [parsed.training_script, *parsed.training_script_args]


def classes(args: argparse.Namespace) -> None:
    """Every value in the class of transformers that it is for. Raises whatever that class raises."""
    import torch
    import transformers  # type: ignore[import-not-found,unused-ignore]
    from transformers.cli.serving.model_manager import ModelManager  # type: ignore[import-not-found,unused-ignore]
    from transformers.distributed import DistributedConfig  # type: ignore[import-not-found,unused-ignore]
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS  # type: ignore[import-not-found,unused-ignore]

    given = {name.removeprefix(CB): value for name, value in vars(args).items() if name.startswith(CB) and value is not None}
    transformers.ContinuousBatchingConfig(allow_block_sharing=args.prefix_cache, auto_switch_to_flash=False, **given)
    if args.tp > 1:
        DistributedConfig(tp_size=args.tp, ep_size=args.ep)
    if args.dequantize:
        transformers.Mxfp4Config(dequantize=True)
    if not isinstance(getattr(torch, args.dtype), torch.dtype):
        raise ValueError(f"{args.dtype} is no dtype")
    known = ("eager", *ALL_EXPERTS_FUNCTIONS.valid_keys())
    if args.experts_implementation not in (None, *known):
        raise ValueError(f"experts implementation {args.experts_implementation} is none of {known}")
    ModelManager(args.device, args.dtype, attn_implementation=args.attn_implementation)


def read_somewhere(env: Mapping[str, str]) -> None:
    """ValueError for a variable that neither transformers nor what it brings along is known to read."""
    unknown = set(env) - set(VARIABLES)
    if unknown:
        raise ValueError(f"nobody reads {', '.join(sorted(unknown))}")
    if "HF_DEACTIVATE_ASYNC_LOAD" in env:
        from transformers import core_model_loading

        if "HF_DEACTIVATE_ASYNC_LOAD" not in Path(str(core_model_loading.__file__)).read_text(encoding="utf-8"):
            raise ValueError("transformers no longer reads HF_DEACTIVATE_ASYNC_LOAD")


def judge(argv: Sequence[str], env: Mapping[str, str]) -> str | None:
    """What any of the parsers and classes has against this launch; None: nothing."""
    from transformers_flags import parser  # type: ignore[import-not-found,unused-ignore]

    try:
        rest = torchrun(argv[3:]) if argv[1:3] == ["-m", "torch.distributed.run"] else list(argv[1:])
        if rest[0] != str(WORKERS / "transformers_worker.py"):
            return f"nobody here parses {rest[:2]}"
        classes(parser().parse_args(rest[1:]))
        read_somewhere(env)
    except SystemExit:
        return "its parser refuses the command line (see stderr)"
    except Exception as error:  # noqa: BLE001  # whatever a parser or a class raises is its refusal
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    from importlib.metadata import version

    print(json.dumps({"engine": "transformers", "version": version("transformers")}))
    for line in sys.stdin:
        request = json.loads(line)
        error = judge(request["argv"], request["env"])
        print(json.dumps({"name": request["name"], "accepted": error is None} | ({} if error is None else {"error": error})))


if __name__ == "__main__":
    main()
