"""Advises how to split a model that is too large for its device between device and host: each llama.cpp split with its ceiling.

A mixture of experts keeps the routed experts of the first N layers on the host (`--n-cpu-moe N`), a dense model the layers (`-ngl`).
The curve over N shows the speed that each GB of device memory buys. Only the bandwidth of host memory limits the host here; slow cores make
the real curve lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.physics.memory import Fit, Reserve
from enginebench.physics.offload import Offload
from enginebench.physics.popularity import Popularity
from enginebench.physics.roofline import Step, decode
from enginebench.physics.setting import Setting

ALL_LAYERS = 999
"""More layers than any model has; llama.cpp accepts that."""
LLAMACPP = Reserve(runtime=1.0 * 2**30, chunk=512)
"""Assumed memory of llama.cpp beside weights and cache: a CUDA context and buffers for one micro-batch (-ub 512)."""
_KV_TYPES = {32.0: "f32", 8.5: "q8_0", 6.0: "q5_1", 5.5: "q5_0", 5.0: "q4_1", 4.5: "q4_0"}
"""Bits per element of the KV cache -> llama.cpp's name, without the default."""


@dataclass(frozen=True)
class Split:
    """One point of the curve."""

    layers: int
    """Number of layers whose experts (of a dense model: all weights) are on the host."""
    fit: Fit
    step: Step

    @property
    def device_bytes(self) -> float:
        """Weights on the fullest device."""
        return sum(self.fit.budget.weights.values())

    @property
    def options(self) -> dict[str, int | str]:
        """The `options` of a llama.cpp deployment in a scenario."""
        kv = _KV_TYPES.get(self.fit.kv_bits)
        return {**self._placed, **({"kv_type": kv} if kv else {})}

    @property
    def flags(self) -> str:
        """The flags of llama-server, with the total context of all sequences: '-ngl 999 --n-cpu-moe 37 -c 8192 -np 1'."""
        layers, kv = self._placed.get("gpu_layers", ALL_LAYERS), _KV_TYPES.get(self.fit.kv_bits)
        words = ["-ngl", layers, *(("--n-cpu-moe", self.layers) if "n_cpu_moe" in self._placed else ())]
        words += ["-c", self.fit.context * self.fit.concurrency, "-np", self.fit.concurrency]
        words += ["-ctk", kv, "-ctv", kv] if kv else []
        return " ".join(map(str, words))

    @property
    def _placed(self) -> dict[str, int | str]:
        model = self.fit.weights.model
        if model.experts:
            return {"n_cpu_moe": self.layers}
        # the head counts as a layer, and is the last to move to the host
        return {"gpu_layers": len(model.layers) + 1 - self.layers}


def splits(asked: Fit, popularity: Popularity | None = None) -> list[Split]:
    """For N from 0 to all layers: whether it fits, and the decode ceiling of `asked.concurrency` sequences of `asked.context` tokens.

    UserError if the machine has no host memory.
    """
    mixture = asked.weights.model.experts is not None
    found = []
    for layers in range(len(asked.weights.model.layers) + 1):
        offload = Offload(expert_layers=layers) if mixture else Offload(blocks=layers)
        setting = Setting(asked.weights, asked.machine, asked.parallelism, asked.kv_bits, popularity, offload)
        found.append(Split(layers, asked.with_offload(offload), decode(setting, asked.concurrency, asked.context)))
    return found


def plan(curve: Sequence[Split]) -> Split | None:
    """The fastest split that fits, which has the least on the host; None if none fits."""
    return next((each for each in curve if each.fit.fits), None)


def knee(curve: Sequence[Split]) -> Split | None:
    """The first split at which host memory takes more than half of the step; None if there is none."""
    return next((each for each in curve if each.step.memory["host"] > each.step.time_s / 2), None)
