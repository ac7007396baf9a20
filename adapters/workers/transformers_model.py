"""How the transformers worker loads its model: as `transformers serve` does, with weights drawn from a seed, or sharded over ranks.

Also observes a loaded model: which experts function ran, which prompts found their beginning in the KV cache, and the format of its
weights. Unverified, because it needs several GPUs or kernels from a hub: `layers_over`, and MXFP4 weights that stay MXFP4.
"""

import argparse
import atexit
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import transformers
from torch import distributed
from transformers import core_model_loading
from transformers.cli.serving.model_manager import ModelManager
from transformers.distributed import DistributedConfig
from transformers.generation.continuous_batching.cache import ATTN_TYPE_TO_ALLOCATOR, PagedAttentionCache, find_head_dim
from transformers.integrations import moe

BETWEEN_LOADS = timedelta(days=1)
"""How long a rank waits for the next command; torch's default (10 or 30 minutes) would end an idle server."""
RANK = int(os.environ.get("RANK", "0"))
"""This process among those of torchrun; 0 without it."""


class Loader(ModelManager):  # type: ignore[misc]  # untyped here: it is installed in the engine's environment
    """transformers' own model manager, with ways of loading for which `transformers serve` has no flag."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        if args.loading_workers is not None:
            core_model_loading.GLOBAL_WORKERS = args.loading_workers  # transformers has neither a flag nor a variable for it
        super().__init__(args.device, args.dtype, attn_implementation=args.attn_implementation, continuous_batching=True)
        self.force_model, self.model_timeout = args.model, -1  # the parent does this after loading, which needs the rest

    def _load_model(self, model_id_and_revision: str, *args: Any, **kwargs: Any) -> Any:
        name, _, revision = model_id_and_revision.partition("@")
        config = transformers.AutoConfig.from_pretrained(name, revision=revision)
        architecture = getattr(transformers, config.architectures[0])
        how: dict[str, Any] = {"dtype": self.dtype, "attn_implementation": self.attn_implementation}
        if self._args.load_format == "dummy":
            return random_weights(architecture, config, _one_device(self.device), how)
        if self._args.dequantize:
            how["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
        return architecture.from_pretrained(name, revision=revision, **how, **self._placement())

    def _placement(self) -> Mapping[str, Any]:
        if self._args.tp > 1:
            return {"distributed_config": DistributedConfig(tp_size=self._args.tp, ep_size=self._args.ep)}
        if self._args.pp > 1:
            return layers_over(self._args.pp)
        return {"device_map": _one_device(self.device)}


def random_weights(architecture: Any, config: Any, device: Any, how: Mapping[str, Any]) -> Any:
    """A model whose weights are drawn from seed 0 as for training: no weight file is read."""
    torch.manual_seed(0)
    with torch.device(device):
        return architecture._from_config(config, **how).eval()  # noqa: SLF001  # what AutoModel.from_config calls


def layers_over(devices: int) -> Mapping[str, Any]:
    """Whole layers spread over the first `devices` GPUs, which then work in turn (accelerate's `balanced`)."""
    return {"device_map": "balanced", "max_memory": {index: torch.cuda.mem_get_info(index)[0] for index in range(devices)}}


def _one_device(device: str | int) -> str | int:
    """`auto` is the first accelerator or the CPU; in transformers it spreads the layers over every GPU."""
    if device != "auto":
        return device
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return str(accelerator) if accelerator is not None else "cpu"


def weights(model: Any) -> str:
    """The format of the weights: a quantization's name, or a dtype. Expanded weights are not quantized, whatever the config says."""
    quantizer = getattr(model, "hf_quantizer", None)
    config = getattr(quantizer, "quantization_config", None)
    if config is None or getattr(config, "dequantize", False):
        return str(model.dtype).removeprefix("torch.")
    return str(getattr(config.quant_method, "value", config.quant_method))


def need_paged_cache(model: Any) -> None:
    """Raises ValueError for a model that transformers' paged cache cannot hold, which would otherwise fail at the first request."""
    config = model.config.get_text_config()
    if unknown := sorted(set(getattr(config, "layer_types", None) or ()) - ATTN_TYPE_TO_ALLOCATOR.keys()):
        raise ValueError(f"{type(model).__name__} has layers of {', '.join(unknown)}, for which continuous batching has no cache")
    width, keys, values = find_head_dim(config), getattr(config, "qk_head_dim", None), getattr(config, "v_head_dim", None)
    if {keys, values} - {None, width}:
        has = f"keys of {keys} and values of {values} numbers per head"
        raise ValueError(f"{type(model).__name__} has {has}, and continuous batching has a cache of {width} for both")


class ExpertsObserver:
    """Records which experts functions the model's layers use while it runs.

    The configured name does not prove it: a model class may ignore it, and grouped_mm silently becomes a loop over the experts where torch
    has no kernel for the device. Costs a set lookup per layer and step.
    """

    def __init__(self) -> None:
        self.ran: set[str] = set()
        dispatch, has_kernel = moe.ExpertsInterface.get_interface, moe._can_use_grouped_mm  # noqa: SLF001  # no public place to look

        def get_interface(interface: Any, name: str, default: Any) -> Any:
            function = dispatch(interface, name, default)
            self.ran.add("eager" if function is default else function.__name__.removesuffix("_experts_forward"))
            return function

        def can_use_grouped_mm(*tensors: Any) -> bool:
            native = bool(has_kernel(*tensors))
            if not native:
                self.ran.add("grouped_mm_fallback")
            return native

        moe.ExpertsInterface.get_interface = get_interface
        moe._can_use_grouped_mm = can_use_grouped_mm  # noqa: SLF001


class PrefixObserver:
    """Records how many tokens of each prompt came from the KV cache; requests without any are not in `found`.

    The scheduler shares pages in one place, and never gets there when sharing is off.
    """

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        search = PagedAttentionCache.search_prefix_match

        def searched(cache: Any, request_id: str, prompt_ids: list[int]) -> int:
            tokens = int(search(cache, request_id, prompt_ids))
            if tokens:
                self.found[request_id] = tokens
            return tokens

        PagedAttentionCache.search_prefix_match = searched


class Ranks:
    """Keeps the ranks of a sharded model in step: the others do with a batching manager what rank 0 does.

    The managers themselves pass requests and results from rank 0 to the rest; only creating, starting and stopping them is broadcast here.
    With a single process nothing is.
    """

    STEPS = ("warmup", "start", "stop", "destroy")

    def __init__(self, model: Any) -> None:
        self._model = model
        self._group = distributed.new_group(backend="gloo", timeout=BETWEEN_LOADS) if distributed.is_initialized() else None
        if RANK == 0:
            atexit.register(self.broadcast, None, {})

    def broadcast(self, step: str | None, arguments: Mapping[str, Any]) -> None:
        """Rank 0: the step that the others take next; None ends them."""
        if self._group is not None:
            distributed.broadcast_object_list([step, dict(arguments)], src=0, group=self._group)

    def lead(self, manager: Any) -> Any:
        if self._group is not None:
            for step in self.STEPS:
                setattr(manager, step, self._broadcasting(step, getattr(manager, step)))
        return manager

    def _broadcasting(self, step: str, take: Any) -> Any:
        def both(**arguments: Any) -> Any:
            self.broadcast(step, arguments)
            return take(**arguments)

        return both

    def follow(self) -> None:
        manager: Any = None
        torch.set_grad_enabled(False)  # as rank 0 warms up
        while True:
            order: list[Any] = [None, None]
            distributed.broadcast_object_list(order, src=0, group=self._group)
            step, arguments = order
            if step is None:
                return
            if step == "init":
                manager = self._model.init_continuous_batching(**arguments)
            else:
                getattr(manager, step)(**arguments)
