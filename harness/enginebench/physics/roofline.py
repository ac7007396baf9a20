"""How fast could it be: the least time that a step can take by memory bandwidth, by arithmetic and by the links between devices.

    decode step:  always-read weights + experts touched + KV cache, over bandwidth      (`popularity` gives the experts touched)
                  2 operations per active weight and token + attention, over the arithmetic rate
                  all-reduces and expert exchange, over the link

The largest of the three rules; the other two hide behind it at best, so the result is a ceiling: no engine is faster, most are far
below. Kernel launches, synchronisation, sampling and scheduling take no time here. Tiers of memory take turns, because the layers that
lie in them follow one another: their times add. Experts are taken to be spread evenly over expert-parallel ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from enginebench.physics.setting import Setting
from enginebench.physics.work import Work


@dataclass(frozen=True)
class Step:
    """One step and what it takes at least. batch: sequences, over all replicas; context: tokens that each already has.

    tokens: made by the step, over all sequences. seconds: by limit, 'memory', 'compute', 'link'. memory: the memory's seconds by
    `work.MEMORY`. bytes: what a device of the slowest stage reads for one micro-batch, likewise. touched: distinct experts of a layer.
    arithmetic: the format of the products. drafting_s: seconds before the step that nothing hides.
    """

    batch: int
    context: float
    tokens: float
    seconds: Mapping[str, float]
    memory: Mapping[str, float]
    bytes: Mapping[str, float]
    touched: float | None
    arithmetic: str
    drafting_s: float = 0.0

    @property
    def time_s(self) -> float:
        """Seconds from one step of a sequence to its next (or of the whole prefill)."""
        return max(self.seconds.values()) + self.drafting_s

    @property
    def tokens_per_s(self) -> float:
        """Of all sequences together."""
        return self.tokens / self.time_s

    @property
    def tokens_per_s_user(self) -> float:
        """Of one sequence."""
        return self.tokens_per_s / self.batch

    @property
    def limit(self) -> str:
        """'memory', 'compute' or 'link'."""
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def rules(self) -> str:
        """What most of the time goes to: 'compute', 'link', or the largest part of the memory's time."""
        return max(self.memory, key=self.memory.__getitem__) if self.limit == "memory" else self.limit


def decode(setting: Setting, batch: int, context: float) -> Step:
    """The ceiling of one decode step of `batch` sequences that hold `context` tokens each (0 leaves the cache out)."""
    p, speculation = setting.parallelism, setting.speculation
    sequences = max(1.0, batch / p.dp_replicas)  # fewer sequences than replicas leave some of them idle
    in_flight = min(p.pp, max(1, math.floor(sequences)))
    work = Work(setting, sequences / in_flight, speculation.tokens + 1 if speculation else 1, context, prompt=False)
    drafting = 0.0
    if speculation and speculation.drafter:
        drafting = speculation.tokens * decode(speculation.drafter, batch, context).time_s
    return _step(work, batch, batch * (speculation.made if speculation else 1.0), in_flight, drafting)


def prefill(setting: Setting, tokens: int, sequences: int = 1) -> Step:
    """The ceiling of the prefill of `sequences` prompts of so many tokens at once; its time_s is the least time to the first token."""
    work = Work(setting, max(1.0, sequences / setting.parallelism.dp_replicas), tokens, tokens, prompt=True)
    return _step(work, sequences, sequences * tokens, 1, 0.0)


def _step(work: Work, batch: int, tokens: float, in_flight: int, drafting_s: float) -> Step:
    """Stages work on micro-batches in turn: a sequence waits for every stage once, and for the slowest once per micro-batch at least."""
    setting = work.setting
    arithmetic, rate = setting.machine.device.compute(setting.weights.precision.arithmetic)
    _, wide = setting.machine.device.compute(("bf16",))  # attention multiplies in 16 bits whatever the weights are
    each: list[tuple[dict[str, float], dict[str, float], dict[str, float]]] = []
    for stage in range(setting.parallelism.pp):
        read = work.read(stage)
        memory = {
            name: size / (setting.host_bandwidth if name == "host" else setting.machine.device.bandwidth) for name, size in read.items()
        }
        compute = work.products(stage) / rate + work.scores(stage) / wide
        each.append(({"memory": sum(memory.values()), "compute": compute, "link": work.sending_s(stage)}, memory, read))
    times = [max(seconds.values()) for seconds, _, _ in each]
    seconds, memory, read = each[times.index(max(times))]
    rounds = max(in_flight, sum(times) / max(times))
    return Step(
        batch=batch,
        context=work.context,
        tokens=tokens,
        seconds={name: value * rounds for name, value in seconds.items()},
        memory={name: value * rounds for name, value in memory.items()},
        bytes=read,
        touched=setting.routing.touched(work.rows) if setting.routing else None,
        arithmetic=arithmetic,
        drafting_s=drafting_s,
    )
