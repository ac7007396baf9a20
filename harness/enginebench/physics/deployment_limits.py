"""What physics allows a deployment under a load: whether it fits its machine, and the most output tokens/s that it could make there.

Joins the nouns of a scenario with `enginebench.physics`; a plan, a report and an audit ask the same. What cannot be known (a model that
is in no catalogue, an option that places weights in its own way) is `Unknown`, with the reason, and never a guess. Both answers are on
the kind side: a deployment is only said not to fit where weights and cache alone do not, and a ceiling leaves out whatever could overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from enginebench.checkpoints import local_path
from enginebench.domain import Deployment, Load, Parallelism
from enginebench.errors import UserError
from enginebench.physics.catalogue import THIS_CPU
from enginebench.physics.machine import GB, Machine
from enginebench.physics.memory import Fit, fit
from enginebench.physics.named_model import read_weights
from enginebench.physics.offload import Offload
from enginebench.physics.placement import Placement, placement_of
from enginebench.physics.roofline import decode, prefill
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import devices_of, problem
from enginebench.physics.weights import Weights
from enginebench.workload.lengths import Lengths


class Unknown(Exception):  # noqa: N818  # no mishap: an answer
    """Nobody can tell; the text says why."""


@dataclass(frozen=True)
class Need:
    """Memory that a load takes of each device, beside what a device has; `fit.fits` asks for room to work in as well."""

    fit: Fit

    @property
    def impossible(self) -> bool:
        """Whether weights and cache alone are more than there is, on the device or in the host's memory."""
        budget, host = self.fit.budget, self.fit.machine.host
        too_little = host is not None and budget.host > host.memory
        return too_little or budget.left + budget.activations + budget.runtime < 0

    @property
    def text(self) -> str:
        """'61.2 of 85.5 GB per GPU (weights 54.0, KV cache 4.5, to work in 2.7) at 64 streams of 2,048 tokens'."""
        budget = self.fit.budget
        weights, working = sum(budget.weights.values()), budget.activations + budget.runtime
        parts = f"weights {weights / GB:.1f}, KV cache {budget.cache / GB:.1f}, to work in {working / GB:.1f}"
        host = f" and {budget.host / GB:.1f} GB of the host's memory" if budget.host else ""
        return f"{budget.needed / GB:.1f} of {budget.usable / GB:.1f} GB per GPU ({parts}){host} at {self.streams}"

    @property
    def streams(self) -> str:
        """'64 streams of 2,048 tokens'."""
        number = self.fit.concurrency
        return f"{f'{number} streams' if number != 1 else 'one stream'} of {self.fit.context:,} tokens"

    @property
    def refusal(self) -> str:
        """Why it cannot be, with the numbers."""
        most = self.fit.max_concurrency if self.fit.concurrency > 1 else 0
        more = f"; {most:,} would fit" if most else ""
        return f"{self.fit.why_not} ({self.streams}{more})"


@dataclass(frozen=True)
class Bounds:
    """One machine. base: the folder that relative checkpoints start from."""

    machine: Machine
    base: Path = Path()

    def of(self, deployment: Deployment, kv_dtype: str | None = None) -> DeploymentLimits:
        """What the machine allows a deployment. kv_dtype: what the engine said that its cache has. `Unknown` where nobody can tell."""
        if deployment.runtime == "attach":
            raise Unknown("a server that somebody else started is spread and placed as only he knows")
        weights = weights_of(deployment.model, deployment.precision, deployment.checkpoint, self.base)
        if weights is None:
            raise Unknown(f"neither the catalogue nor a file here says how large {deployment.model} in {deployment.precision} is")
        placement = placement_of(deployment.options, kv_dtype)
        if isinstance(placement, str):
            raise Unknown(placement)
        return DeploymentLimits(deployment, self.machine, weights, placement)

    def refusals(self, deployment: Deployment, loads: Sequence[Load], gpus: int) -> Mapping[Load, str]:
        """Why the machine cannot take the deployment under some of these loads. gpus: devices that it takes."""
        if deployment.runtime == "attach" or gpus == 0:
            return {}
        if gpus > self.machine.count:
            return dict.fromkeys(loads, f"takes {gpus} GPUs, {self.machine.name} has {self.machine.count}")
        try:
            held = self.of(deployment)
            needs = {load: held.need(load) for load in loads}
        except Unknown:
            return {}
        return {load: need.refusal for load, need in needs.items() if need.impossible}


@dataclass(frozen=True)
class DeploymentLimits:
    """A deployment on a machine. Every method raises `Unknown` where nobody can tell."""

    deployment: Deployment
    machine: Machine
    weights: Weights
    placement: Placement

    @cached_property
    def settings(self) -> Sequence[Setting]:
        """What the deployment may mean in the words of physics, with the bandwidth that a copy reached where somebody measured it."""
        if self.machine.device.name.startswith(THIS_CPU):
            spreads: Sequence[Parallelism] = [Parallelism()]  # ranks share one memory
        else:
            spreads = _readings(self.deployment.parallelism, self.placement, self.weights)
        offload = _offload(self.placement, self.weights)
        if offload.anything and self.machine.host is None:
            raise Unknown("some weights are in the host's memory, whose size is not stated (write e.g. 4xh100+256gb)")
        machine = self.machine.as_measured()
        machines = [replace(machine, count=max(machine.count, devices_of(spread))) for spread in spreads]
        return [
            Setting(self.weights, machine, spread, self.placement.kv_bits, offload=offload)
            for machine, spread in zip(machines, spreads, strict=True)
        ]

    @cached_property
    def _fits(self) -> Sequence[Fit]:
        return [
            fit(each.weights, each.machine, each.parallelism, context=1, concurrency=1, kv_bits=each.kv_bits, offload=each.offload)
            for each in self.settings
        ]

    def need(self, load: Load) -> Need:
        """The memory that a load takes in the kindest reading of the deployment.

        The server must hold one request as long as it was told to expect; and all streams of the load, each at its mean length.
        """
        streams, context = _streams(load), _mean_context(load)
        if context is None or self.deployment.max_context > streams * context:
            streams, context = 1, max(1, self.deployment.max_context)
        needs = [Need(each.at(context, streams)) for each in self._fits]
        return min(needs, key=lambda need: (need.impossible, need.fit.budget.needed))

    def ceiling(self, tokens: tuple[float, float], streams: float, *, cached: bool = False) -> float:
        """The most output tokens/s of `streams` requests at a time that have (input, output) tokens each.

        Two limits hold, and the lower one is the ceiling. A request takes each resource r (memory, arithmetic, links) for at least
            busy(r) = prefill(r) + (output - 1) x step(r, streams) / streams
        seconds of the whole machine's time, whatever overlaps with whatever else; prefill(memory) is left out, because a prompt can
        go through the model together with the others' tokens. So tokens/s <= output / max over r of busy(r). And one request after
        the other in each stream takes at least prefill + (output - 1) x step(1): tokens/s <= streams x output / that.
        step and prefill are those of `physics`: experts touched under even routing, a cache of input + output / 2 tokens, and the
        bandwidth that a copy reached on such a device where somebody measured it, else the data sheet's. cached: prompts may have been
        computed before, so prefill takes no time. A disaggregated deployment has the limits of its decode side alone.
        """
        if self.placement.drafts:
            raise Unknown("tokens are drafted, and how many of them are accepted is not known before")
        no_prompt = cached or self.placement.prefill > 0
        return max(_ceiling(setting, tokens, streams, no_prompt=no_prompt) for setting in self.settings)

    def least_s(self, load: Load) -> float:
        """Seconds that a load takes at least: as long as it is told to, or as its rate or the ceiling make it."""
        if load.duration_s is not None and not load.requests:
            return load.duration_s
        tokens = mean_tokens(load)
        if load.rate is not None:
            taken = load.requests / ((load.rate + (load.rate if load.rate_to is None else load.rate_to)) / 2)
        elif tokens is None:
            raise Unknown("only the data set or the trace knows how long requests are")
        else:
            taken = load.requests * tokens[1] / self.ceiling(tokens, load.concurrency, cached=load.prefix_cache == "allowed")
        return taken if load.duration_s is None else min(taken, load.duration_s)


def _ceiling(setting: Setting, tokens: tuple[float, float], streams: float, *, no_prompt: bool) -> float:
    """`Held.ceiling` in one reading of the deployment."""
    entered, made = tokens
    context, steps = entered + made / 2, max(0.0, made - 1)
    batch = decode(setting, math.ceil(streams), context)
    busy = {name: seconds * steps / batch.batch for name, seconds in batch.seconds.items()}
    latency = steps * decode(setting, 1, context).time_s
    if not no_prompt:
        spread, prompt = setting.parallelism, max(1, round(entered))
        ways = spread.dp_replicas * spread.attention_dp
        spent = prefill(setting, prompt, ways).seconds
        busy = {name: busy[name] + spent[name] / (ways * spread.pp) * (name != "memory") for name in busy}
        latency += prefill(setting, prompt).time_s
    return made / max(*busy.values(), latency / streams)


def mean_tokens(load: Load) -> tuple[float, float] | None:
    """Input and output tokens of a request on average; None where only a data set or a trace knows."""
    return None if load.trace is not None else Lengths.of(load).mean


@cache
def weights_of(model: str, precision: str, checkpoint: str, base: Path = Path()) -> Weights | None:
    """The weights of a deployment: of its checkpoint where that is at hand, else of the catalogue; None where neither knows it.

    A GGUF holds what will be loaded; a folder may be quantised while loading, so that its dimensions count in the precision asked for.
    """
    file = local_path(checkpoint, base)
    names: list[tuple[str, str | None]] = [] if file is None else [(str(file), None if file.suffix == ".gguf" else precision)]
    for reference, name in (*names, (checkpoint, precision), (model, precision)):
        try:
            return read_weights(reference, name)
        except UserError:
            continue
    return None


def _readings(spread: Parallelism, placement: Placement, weights: Weights) -> Sequence[Parallelism]:
    """What a spread may mean, in the words of physics: replicas may hold experts of their own, or share them out (vLLM does).

    The decode servers of a disaggregated deployment are replicas. `Unknown` where the model cannot be shared out so.
    """
    apart = replace(spread, dp_replicas=spread.dp_replicas * placement.decode)
    ranks = spread.tp * spread.dp_replicas
    shared = Parallelism(ranks, spread.pp, placement.decode, spread.attention_dp * spread.dp_replicas, spread.ep)
    both = [apart, shared] if spread.dp_replicas > 1 and weights.model.experts else [apart]
    problems = [problem(weights.model, each) for each in both]
    possible = [each for each, why in zip(both, problems, strict=True) if why is None]
    if not possible:
        raise Unknown(f"{problems[0]}, as far as is known here")
    return possible


def _offload(placement: Placement, weights: Weights) -> Offload:
    """What is in the host's memory. Engines fill the device from the last layer down."""
    layers = len(weights.model.layers)
    experts = layers if placement.expert_layers is None else min(placement.expert_layers, layers)
    blocks = 0 if placement.device_layers is None else max(0, layers - max(0, placement.device_layers))
    return Offload(expert_layers=experts if weights.model.experts else 0, blocks=blocks)


def _streams(load: Load) -> int:
    """Requests that are surely there at once. Those that share a prefix share its cache, so that one of them counts."""
    if load.open_loop or load.prefix_cache == "allowed":
        return 1
    return min(load.concurrency, load.requests) if load.requests else load.concurrency


def _mean_context(load: Load) -> int | None:
    """Tokens that a request holds at its end, on average; None where nobody can say, or a conversation grows."""
    tokens = mean_tokens(load) if load.turns == 1 else None
    return None if tokens is None else math.ceil(sum(tokens))
