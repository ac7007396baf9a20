"""How much of a model to keep on a card that is too small for it: every split that llama.cpp has a flag for, with its ceiling.

A mixture keeps all layers on the device except the routed experts of the first N (`--n-cpu-moe N`), a dense model leaves its first N layers
whole (`-ngl`). One curve over N says how much speed each gigabyte of the device buys. Knows the flags' arithmetic and nothing of how fast
a host computes: its memory's bandwidth alone sets the host's pace here, so that slow cores make the real curve lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginebench.physics.memory import Fit, Reserve, fit
from enginebench.physics.offload import Offload
from enginebench.physics.popularity import Popularity
from enginebench.physics.roofline import Step, decode
from enginebench.physics.setting import Setting

ALL_LAYERS = 999
"""More than any model has: llama.cpp takes what there is."""
LLAMACPP = Reserve(runtime=1.0 * 2**30, chunk=512)
"""What llama.cpp takes beside weights and cache: a CUDA context and buffers for one micro-batch (-ub 512). Assumed."""
_KV_TYPES = {32.0: "f32", 8.5: "q8_0", 6.0: "q5_1", 5.5: "q5_0", 5.0: "q4_1", 4.5: "q4_0"}
"""Bits of a cache's element -> llama.cpp's name, where it is not the default."""


@dataclass(frozen=True)
class Split:
    """One point of the curve. layers: N, those that leave their experts (of a dense model: everything) on the host."""

    layers: int
    fit: Fit
    step: Step

    @property
    def device_bytes(self) -> float:
        """Weights on the fullest device."""
        return sum(self.fit.budget.weights.values())

    @property
    def options(self) -> dict[str, int | str]:
        """What a scenario writes under `options` of a llama.cpp deployment."""
        kv = _KV_TYPES.get(self.fit.kv_bits)
        return {**self._placed, **({"kv_type": kv} if kv else {})}

    @property
    def flags(self) -> str:
        """The same for llama-server, with the context over all sequences: '-ngl 999 --n-cpu-moe 37 -c 8192 -np 1'."""
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
        # the head counts as a layer, and is the last to leave the device
        return {"gpu_layers": len(model.layers) + 1 - self.layers}


def splits(asked: Fit, popularity: Popularity | None = None) -> list[Split]:
    """For N from 0 to all layers: does it fit, and how fast could `asked.concurrency` sequences of `asked.context` tokens be decoded.

    UserError where no host is named.
    """
    mixture = asked.weights.model.experts is not None
    found = []
    for layers in range(len(asked.weights.model.layers) + 1):
        offload = Offload(expert_layers=layers) if mixture else Offload(blocks=layers)
        setting = Setting(asked.weights, asked.machine, asked.parallelism, asked.kv_bits, popularity, offload)
        held = fit(
            asked.weights, asked.machine, asked.parallelism, context=asked.context, concurrency=asked.concurrency, kv_bits=asked.kv_bits,
            reserve=asked.reserve, offload=offload,
        )  # fmt: skip
        found.append(Split(layers, held, decode(setting, asked.concurrency, asked.context)))
    return found


def plan(curve: Sequence[Split]) -> Split | None:
    """The fastest that fits: the one with the least on the host. None where not even everything on the host is enough."""
    return next((each for each in curve if each.fit.fits), None)


def knee(curve: Sequence[Split]) -> Split | None:
    """From here on the host's memory takes longer than everything on the device together; None where it never does."""
    return next((each for each in curve if each.step.memory["host"] > each.step.time_s / 2), None)
