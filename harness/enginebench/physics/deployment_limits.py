"""Limits of a deployment under a load: whether it fits its machine, and its ceiling in output tokens/s.

Applies the models of `enginebench.physics` to the deployments and loads of a scenario, for plan, report and audit. If something is unknown
(a model that is not in the catalogue, an option that places weights in its own way), `UnknownLimit` is raised with the reason; there are no
guesses. Both answers favour the deployment: it counts as not fitting only if weights and KV cache alone exceed the memory, and the ceiling
assumes that everything that can overlap does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

from enginebench.checkpoints import local_path
from enginebench.domain import Deployment, Load, Parallelism
from enginebench.errors import UserError
from enginebench.physics.catalogue import THIS_CPU
from enginebench.physics.expectation import Expectations, Expected, PhysicalEstimate, published
from enginebench.physics.files import read_weights
from enginebench.physics.machine import GB, Machine
from enginebench.physics.memory import Fit, fit
from enginebench.physics.placement import GGUF_ENGINES, Placement, placement_of
from enginebench.physics.roofline import decode, prefill
from enginebench.physics.setting import Setting, Speculation
from enginebench.physics.sharding import devices_of, problem
from enginebench.physics.weights import Offload, Weights
from enginebench.workload.lengths import Lengths

_WHOLE = frozenset({"f32", "f16", "bf16"})
"""Precisions of checkpoints that are not quantised."""


class UnknownLimit(Exception):  # noqa: N818  # a result, not an error
    """A limit cannot be computed. The text gives the reason."""


@dataclass(frozen=True)
class MemoryNeed:
    """Memory per device that a load needs."""

    fit: Fit
    """`fit.fits` also requires working memory."""

    @property
    def impossible(self) -> bool:
        """Whether weights and KV cache alone exceed the memory of the device or of the host."""
        budget, host = self.fit.budget, self.fit.machine.host
        exceeds_host = host is not None and budget.host > host.memory
        return exceeds_host or budget.left + budget.activations + budget.runtime < 0

    @property
    def text(self) -> str:
        """'61.2 of 85.5 GB per GPU (weights 54.0, KV cache 4.5, working memory 2.7) at 64 streams of 2,048 tokens'."""
        budget = self.fit.budget
        weights, working = sum(budget.weights.values()), budget.activations + budget.runtime
        draft = f", draft model {budget.draft / GB:.1f}" if budget.draft else ""
        parts = f"weights {weights / GB:.1f}, KV cache {budget.cache / GB:.1f}{draft}, working memory {working / GB:.1f}"
        host = f" and {budget.host / GB:.1f} GB of host memory" if budget.host else ""
        return f"{budget.needed / GB:.1f} of {budget.usable / GB:.1f} GB per GPU ({parts}){host} at {self.streams}"

    @property
    def streams(self) -> str:
        """'64 streams of 2,048 tokens'."""
        number = self.fit.concurrency
        return f"{f'{number} streams' if number != 1 else 'one stream'} of {self.fit.context:,} tokens"

    @property
    def refusal(self) -> str:
        most = self.fit.max_concurrency if self.fit.concurrency > 1 else 0
        more = f"; {most:,} would fit" if most else ""
        return f"{self.fit.why_not} ({self.streams}{more})"


@dataclass(frozen=True)
class MachineLimits:
    machine: Machine
    base: Path = Path()
    """Folder of relative checkpoint paths."""
    expectations: Expectations | None = None
    """What engines usually reach; None: by published measurements."""
    _alike: dict[tuple[object, ...], DeploymentLimits] = field(default_factory=dict, repr=False, compare=False)
    """Limits by what they depend on: a sweep of options has thousands of deployments with the same."""

    def of(self, deployment: Deployment, kv_dtype: str | None = None) -> DeploymentLimits:
        """The limits of a deployment. kv_dtype: type of the KV cache as reported by the engine. Raises UnknownLimit."""
        if deployment.runtime == "attach":
            raise UnknownLimit("the parallelism of an attached server is unknown")
        gguf = deployment.engine in GGUF_ENGINES
        weights = weights_of(deployment.model, deployment.precision, deployment.checkpoint, self.base, gguf=gguf)
        if weights is None:
            raise UnknownLimit(f"the size of {deployment.model} in {deployment.precision} is unknown: not in the catalogue, no local file")
        placement = placement_of(deployment.options, kv_dtype)
        if isinstance(placement, str):
            raise UnknownLimit(placement)
        drafter = self._drafter(deployment)
        key = id(weights), id(drafter), placement, deployment.parallelism, deployment.max_context, deployment.engine, deployment.speculation
        if key not in self._alike:
            self._alike[key] = DeploymentLimits(deployment, self.machine, weights, placement, self.expectations, drafter)
        return self._alike[key]

    def _drafter(self, deployment: Deployment) -> Weights | None:
        """The weights that propose tokens. Raises UnknownLimit if their size is not known."""
        asked = deployment.speculation
        if asked is None or asked.draft is None:
            return None
        precision = asked.draft_precision or deployment.precision
        found = weights_of(asked.draft, precision, asked.draft, self.base, gguf=deployment.engine in GGUF_ENGINES)
        if found is None:
            raise UnknownLimit(f"the size of the draft {asked.draft} is unknown: not in the catalogue, no local file")
        return found

    def refusals(self, deployment: Deployment, loads: Sequence[Load], gpus: int) -> Mapping[Load, str]:
        """The loads under which the deployment does not fit the machine, with reasons. gpus: devices of the deployment."""
        if deployment.runtime == "attach" or gpus == 0:
            return {}
        if gpus > self.machine.count:
            return dict.fromkeys(loads, f"needs {gpus} GPUs, {self.machine.name} has {self.machine.count}")
        try:
            limits = self.of(deployment)
            needs = {load: limits.need(load) for load in loads}
        except UnknownLimit:
            return {}
        return {load: need.refusal for load, need in needs.items() if need.impossible}


@dataclass(frozen=True)
class DeploymentLimits:
    """The limits of a deployment on a machine. Every method may raise UnknownLimit."""

    deployment: Deployment
    machine: Machine
    weights: Weights
    placement: Placement
    expectations: Expectations | None = None
    """None: by published measurements."""
    drafter: Weights | None = None
    """The weights that propose tokens; None: none do, or they are part of the model."""

    @cached_property
    def settings(self) -> Sequence[Setting]:
        """The possible interpretations of the deployment, each with every assumption in its favour."""
        if self.machine.device.name.startswith(THIS_CPU):
            alternatives: Sequence[Parallelism] = [Parallelism()]  # ranks share one memory
        else:
            alternatives = _interpretations(self.deployment.parallelism, self.placement, self.weights)
        offload = _offload(self.placement, self.weights)
        if offload.anything and self.machine.host is None:
            raise UnknownLimit("some weights are in host memory, but its size is not stated (write e.g. 4xh100+256gb)")
        counts = [max(self.machine.count, devices_of(each)) for each in alternatives]
        return [
            Setting(
                self.weights, replace(self.machine, count=count), each, self.placement.kv_bits, self._kv_least, offload=offload,
                redundant=self.placement.redundant if each.ep > 1 else 0, bound=True,
            )
            for count, each in zip(counts, alternatives, strict=True)
        ]  # fmt: skip

    @property
    def _kv_least(self) -> float | None:
        """A quantised checkpoint may ask for a KV cache in 8 bits, which the engines' `auto` follows."""
        quantised = self.weights.precision.name not in _WHOLE and self.deployment.engine not in GGUF_ENGINES
        return 8.0 if quantised and not self.placement.kv_stated else None

    @cached_property
    def _fits(self) -> Sequence[Fit]:
        return [
            fit(
                each.weights,
                each.machine,
                each.parallelism,
                context=1,
                concurrency=1,
                kv_bits=each.kv_bits,
                offload=each.offload,
                redundant=each.redundant,
                drafter=self.drafter,
            )
            for each in self.settings
        ]

    def need(self, load: Load) -> MemoryNeed:
        """The memory that a load needs, in the most favourable interpretation of the deployment.

        The larger of: one request of max_context tokens; all streams of the load at their mean length.
        """
        streams, context = _streams(load), _mean_context(load)
        if context is None or self.deployment.max_context > streams * context:
            streams, context = 1, max(1, self.deployment.max_context)
        if (streams, context) not in self._needs:
            self._needs[streams, context] = self._need(streams, context)
        return self._needs[streams, context]

    @cached_property
    def _needs(self) -> dict[tuple[int, int], MemoryNeed]:
        return {}

    def _need(self, streams: int, context: int) -> MemoryNeed:
        needs = [MemoryNeed(each.at(context, streams)) for each in self._fits]
        return min(needs, key=lambda need: (need.impossible, need.fit.budget.needed))

    def ceiling(self, tokens: tuple[float, float], streams: float, load: Load | None = None, accepted: float | None = None) -> float:
        """The highest possible output tokens/s of `streams` concurrent requests with (input, output) tokens each.

        The lower of two limits. Throughput: a request occupies each resource r (memory, compute, links) of the machine for at least
            busy(r) = prefill(r) + (output - 1) x step(r, streams) / streams
        seconds, however much overlaps, so tokens/s <= output / max over r of busy(r). prefill(memory) is left out, because a prompt can
        pass through the model together with the tokens of other requests. Latency: the requests of a stream are sequential and take at
        least prefill + (output - 1) x step(1) each, so tokens/s <= streams x output / that.

        step and prefill are bounds (`Setting.bound`), with a KV cache of input + output / 2 tokens and the published bandwidth. load: says
        what prompts share, which is read once, and whether they may be cached, so that a prefill takes no time. accepted: with speculation,
        tokens that a step yielded on average; None: those that are forced, else all that can be, 1 + `tokens`. For a disaggregated
        deployment only the decode side counts.
        """
        if self.placement.speculative and self.deployment.speculation is None:
            raise UnknownLimit("speculative decoding: the acceptance rate is unknown in advance")
        no_prompt = self._no_prompt(load)
        shared = _shared(load, tokens[0]) if load is not None else 0.0
        key = tokens, streams, shared, no_prompt, accepted  # the repeats of a cell, and `estimate`, ask the same
        if key not in self._ceilings:
            settings = self._speculating(accepted)
            self._ceilings[key] = max(_ceiling(setting, tokens, streams, shared, no_prompt=no_prompt) for setting in settings)
        return self._ceilings[key]

    @cached_property
    def _ceilings(self) -> dict[tuple[tuple[float, float], float, float, bool, float | None], float]:
        return {}

    def _speculating(self, accepted: float | None) -> Sequence[Setting]:
        """The settings, with steps that yield so many tokens where the deployment speculates."""
        asked = self.deployment.speculation
        if asked is None:
            return self.settings
        length = accepted or asked.forced_length or 1.0 + asked.tokens
        drafts = self.drafter if asked.method == "draft" else None  # a head of its own layers takes too little time to matter to a bound
        return [replace(each, speculation=Speculation(asked.tokens, 1.0, _drafting(drafts, each), length)) for each in self.settings]

    def _no_prompt(self, load: Load | None) -> bool:
        """Whether prompts may be read elsewhere, or from a cache."""
        return self.placement.prefill > 0 or (load is not None and load.prefix_cache != "cold")

    def estimate(self, tokens: tuple[float, float], streams: float, load: Load | None = None) -> PhysicalEstimate:
        """What `ceiling` is without favourable assumptions, before the efficiency of an engine: input of an expectation."""
        if self.placement.speculative or self.deployment.speculation is not None:
            raise UnknownLimit("speculative decoding: the acceptance rate is unknown in advance")
        table, no_prompt = self.expectations or published(), self._no_prompt(load)
        key = tokens, streams, no_prompt
        if key not in self._estimates:
            found = (table.load(setting, tokens, streams, no_prompt=no_prompt) for setting in self.settings)
            self._estimates[key] = max(found, key=lambda each: each.tokens_per_s)
        return replace(self._estimates[key], bound=self.ceiling(tokens, streams, load))

    @cached_property
    def _estimates(self) -> dict[tuple[tuple[float, float], float, bool], PhysicalEstimate]:
        return {}

    def expected(self, estimate: PhysicalEstimate) -> Expected | None:
        """What the engine usually reaches of an estimate; None if no measurement of such a case is known."""
        return (self.expectations or published()).expected(self.deployment.engine, estimate)

    def least_s(self, load: Load) -> float:
        """The shortest possible duration of a load, from its stated duration, its rate, or the ceiling."""
        return _seconds(load, lambda tokens: self.ceiling(tokens, load.concurrency, load))

    def expected_s(self, load: Load) -> float | None:
        """The duration of a load that is expected; None if no measurement of such a case is known."""

        def rate(tokens: tuple[float, float]) -> float:
            found = self.expected(self.estimate(tokens, load.concurrency, load))
            return found.tokens_per_s if found is not None else math.nan

        seconds = _seconds(load, rate)
        return None if math.isnan(seconds) else max(seconds, self.least_s(load))


def _seconds(load: Load, rate: Callable[[tuple[float, float]], float]) -> float:
    """The duration of a load: stated, by its rate of requests, or at the output tokens/s for (input, output) tokens."""
    if load.duration_s is not None and not load.requests:
        return load.duration_s
    tokens = Lengths.of(load).mean
    if load.mean_rate is not None:
        seconds = load.requests / load.mean_rate
    elif tokens is None:
        raise UnknownLimit("request lengths come from a data set or a trace")
    else:
        seconds = load.requests * tokens[1] / rate(tokens)
    return seconds if load.duration_s is None or math.isnan(seconds) else min(seconds, load.duration_s)


def _shared(load: Load, inputs: float) -> float:
    """Prompt tokens that all requests may have in common: a stated prefix, or with a data set perhaps the whole prompt."""
    if load.prefix_cache == "cold":
        return 0.0
    unique = load.prompts in ("random", "text")
    return float(load.prefix_tokens if load.prefix_groups else 0) if unique else inputs


def _drafting(drafter: Weights | None, setting: Setting) -> Setting | None:
    """The drafter on the one device of a deployment; on several it may be divided in ways that are not known, and takes no time."""
    if drafter is None or devices_of(setting.parallelism) > 1:
        return None
    return Setting(drafter, replace(setting.machine, count=1), kv_bits=setting.kv_bits, bound=True)


def _ceiling(setting: Setting, tokens: tuple[float, float], streams: float, shared: float, *, no_prompt: bool) -> float:
    inputs, outputs = tokens
    context, yielded = inputs + outputs / 2, setting.speculation.tokens_per_step if setting.speculation else 1.0
    steps = max(0.0, outputs - 1) / yielded
    batch = decode(setting, math.ceil(streams), context, spread=outputs / 2, shared=shared)
    busy = {name: seconds * steps / batch.batch for name, seconds in batch.seconds.items()}
    latency = steps * decode(setting, 1, context, spread=outputs / 2).time_s
    if not no_prompt:
        parallelism, prompt = setting.parallelism, max(1, round(inputs))
        replicas = parallelism.dp_replicas * parallelism.attention_dp
        seconds = prefill(setting, prompt, replicas).seconds
        busy = {name: busy[name] + seconds[name] / (replicas * parallelism.pp) * (name != "memory") for name in busy}
        latency += prefill(setting, prompt).time_s
    return outputs / max(*busy.values(), latency / streams)


@cache
def weights_of(model: str, precision: str, checkpoint: str, base: Path = Path(), *, gguf: bool = False) -> Weights | None:
    """The weights of a deployment, from its local checkpoint or the catalogue; None if neither has them.

    For a GGUF file, the real sizes. A folder may be quantised while loading, so its dimensions in the requested precision. gguf: the engine
    reads GGUF files. Unsloth's dynamic quantisations are known by the file's name, as their file type is that of the smallest tensors.
    """
    if dynamic := re.search(r"[-/](UD-I?Q\d\w*?)(?:-\d{5}-of-\d{5})?\.gguf$", checkpoint, re.IGNORECASE):
        precision = dynamic[1]
    file = local_path(checkpoint, base)
    names: list[tuple[str, str | None]] = [] if file is None else [(str(file), None if file.suffix == ".gguf" else precision)]
    for reference, name in (*names, (checkpoint, precision), (model, precision)):
        try:
            return read_weights(reference, name, gguf=gguf)
        except UserError:
            continue
    return None


def _interpretations(parallelism: Parallelism, placement: Placement, weights: Weights) -> Sequence[Parallelism]:
    """The parallelism of a deployment: data-parallel replicas may each have all experts, or share them (as in vLLM).

    The decode servers of a disaggregated deployment are replicas. Raises UnknownLimit if the model cannot be split so.
    """
    p = parallelism
    separate = replace(p, dp_replicas=p.dp_replicas * placement.decode)
    shared = Parallelism(p.tp * p.dp_replicas, p.pp, placement.decode, p.attention_dp * p.dp_replicas, p.ep)
    alternatives = [separate, shared] if p.dp_replicas > 1 and weights.model.experts else [separate]
    problems = [problem(weights.model, each) for each in alternatives]
    possible = [each for each, reason in zip(alternatives, problems, strict=True) if reason is None]
    if not possible:
        raise UnknownLimit(f"unknown how the model is split: {problems[0]}")
    return possible


def _offload(placement: Placement, weights: Weights) -> Offload:
    """The weights in host memory. Engines fill the device from the last layer down."""
    layers = len(weights.model.layers)
    experts = layers if placement.expert_layers is None else min(placement.expert_layers, layers)
    blocks = 0 if placement.device_layers is None else max(0, layers - max(0, placement.device_layers))
    return Offload(expert_layers=experts if weights.model.experts else 0, blocks=blocks)


def _streams(load: Load) -> int:
    """Requests that certainly run concurrently. Requests with a shared prefix may share its KV cache, so they count as one."""
    if load.streams is None or load.prefix_cache != "cold":
        return 1
    return min(load.streams, load.requests) if load.requests else load.streams


def _mean_context(load: Load) -> int | None:
    """Mean tokens of a request at its end; None if unknown, or if a conversation grows."""
    tokens = Lengths.of(load).mean if load.turns == 1 else None
    return None if tokens is None else math.ceil(sum(tokens))
