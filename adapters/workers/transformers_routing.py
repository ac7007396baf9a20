"""Which experts transformers' routers choose: generate greedily, then one forward pass over everything with the routers watched.

The choices are the indices that the router modules return, so the rule (softmax, sigmoid, groups, a bias) is the model's own code. Sees
only routers that are modules of their own, with a class name that ends in `Router` or `Gate`.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from worker_protocol import run_routing


class Watch:
    """Records what every router of a model chooses: layer number -> indices [tokens, top_k] of the latest forward pass."""

    def __init__(self, model: Any) -> None:
        self.chosen: dict[int, Any] = {}
        self.experts = 0
        for name, module in model.named_modules():
            layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
            if layer is not None and type(module).__name__.endswith(("Router", "Gate")):
                module.register_forward_hook(self._hook(layer))
                self.experts = max(self.experts, int(module.weight.shape[0]))

    def _hook(self, layer: int) -> Any:
        def hook(module: Any, _inputs: Any, output: Any) -> None:
            self.chosen[layer] = indices_of(module, output).cpu()

        return hook


def indices_of(module: Any, output: Any) -> Any:
    """The experts that a router chose, [tokens, top_k], from what it returns: its own indices, or the top of its last scores."""
    parts = output if isinstance(output, tuple) else (output,)
    for part in parts:
        if torch.is_tensor(part) and not part.is_floating_point():
            return part.reshape(-1, part.shape[-1])
    return parts[-1].reshape(-1, parts[-1].shape[-1]).topk(module.top_k, dim=-1).indices


def batches(prompts: Sequence[list[int]], most: int) -> Iterator[tuple[int, list[list[int]]]]:
    """At most `most` neighbours of one length, with the place of the first: no padding, which routers would choose experts for."""
    start = 0
    for _, alike in itertools.groupby(prompts, key=len):
        each = list(alike)
        for first in range(0, len(each), most):
            yield start + first, each[first : first + most]
        start += len(each)


def collect(job: Mapping[str, Any]) -> dict[str, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"])).eval()
    watch = Watch(model)
    if not watch.experts:
        raise ValueError(f"{type(model).__name__} has no router module: it is dense, or its router cannot be observed")
    experts, sequence, decoded = [], [], []
    for start, prompts in batches(job["prompts"], job["batch"]):
        length, asked = len(prompts[0]), job["output_tokens"]
        ids = torch.tensor(prompts, device=model.device)
        with torch.no_grad():
            generation = transformers.GenerationConfig(max_new_tokens=asked, do_sample=False, eos_token_id=-1, pad_token_id=0)
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=generation)
            # The last token is never an input: a decode step takes the token that the previous one produced.
            model(whole[:, :-1])
        tokens = whole.shape[1] - 1
        layers = sorted(watch.chosen)
        experts.append(torch.stack([watch.chosen[layer] for layer in layers], dim=1).numpy().astype(np.int16))
        sequence.append(np.repeat(np.arange(start, start + len(prompts), dtype=np.int32), tokens))
        decoded.append(np.tile(np.arange(tokens) >= length, len(prompts)))
    return {
        "choices": np.concatenate(experts),
        "sequence": np.concatenate(sequence),
        "decoded": np.concatenate(decoded),
        "layers": np.array(layers, np.int32),
        "experts": watch.experts,
    }


if __name__ == "__main__":
    sys.exit(run_routing(collect, f"transformers {transformers.__version__}, router outputs"))
