"""Limits of a deployment under a load: whether it fits its machine, and its ceiling in output tokens/s.

Applies the models of `enginebench.physics` to the deployments and loads of a scenario, for plan, report and audit. If something is unknown
(a model that is not in the catalogue, an option that places weights in its own way), `UnknownLimit` is raised with the reason; there are no
guesses. Both answers favour the deployment: it counts as not fitting only if weights and KV cache alone exceed the memory, and the ceiling
assumes that everything that can overlap does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

from enginebench.checkpoints import local_path
from enginebench.domain import Deployment, Load, Parallelism
from enginebench.errors import UserError
from enginebench.physics.catalogue import THIS_CPU
from enginebench.physics.expectation import Expectations, Expected, PhysicalEstimate, published
from enginebench.physics.files import read_weights
from enginebench.physics.load_limits import ceiling_of, certain_streams, drafting, mean_context, seconds_of, shared_tokens
from enginebench.physics.machine import Machine
from enginebench.physics.memory import Fit, fit
from enginebench.physics.memory_need import MemoryNeed, UnknownLimit
from enginebench.physics.placement import GGUF_ENGINES, Placement, placement_of
from enginebench.physics.setting import Setting, Speculation
from enginebench.physics.sharding import devices_of, problem
from enginebench.physics.weights import Offload, Weights

_WHOLE = frozenset({"f32", "f16", "bf16"})
"""Precisions of checkpoints that are not quantised."""


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
        streams, context = certain_streams(load), mean_context(load)
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
        shared = shared_tokens(load, tokens[0]) if load is not None else 0.0
        key = tokens, streams, shared, no_prompt, accepted  # the repeats of a cell, and `estimate`, ask the same
        if key not in self._ceilings:
            settings = self._speculating(accepted)
            self._ceilings[key] = max(ceiling_of(setting, tokens, streams, shared, no_prompt=no_prompt) for setting in settings)
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
        return [replace(each, speculation=Speculation(asked.tokens, 1.0, drafting(drafts, each), length)) for each in self.settings]

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
        return seconds_of(load, lambda tokens: self.ceiling(tokens, load.concurrency, load))

    def expected_s(self, load: Load) -> float | None:
        """The duration of a load that is expected; None if no measurement of such a case is known."""

        def rate(tokens: tuple[float, float]) -> float:
            found = self.expected(self.estimate(tokens, load.concurrency, load))
            return found.tokens_per_s if found is not None else math.nan

        seconds = seconds_of(load, rate)
        return None if math.isnan(seconds) else max(seconds, self.least_s(load))


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
