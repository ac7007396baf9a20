"""Does a model fit its hardware, and what would fit. Data out; formatting it for people is left to the caller."""

from __future__ import annotations

from dataclasses import dataclass

from enginebench.domain import JSON, plain
from enginebench.physics import memory
from enginebench.physics.catalogue import devices
from enginebench.physics.machine import GIB
from enginebench.physics.memory import Fit, Reserve
from enginebench.physics.placed import PlacedModel
from enginebench.physics.sizing import most_on_device, smallest


@dataclass(frozen=True)
class ModelFit:
    """Whether a model fits, and what would."""

    fit: Fit
    """Weights, KV cache and working memory per device, in bytes, and what is left."""
    smallest: tuple[Fit, ...]
    """Per device of the catalogue, the fewest that hold one replica; least memory first."""
    with_host: tuple[Fit, ...]
    """Ways in which it fits with the help of the host's memory; empty when it fits without or no host is stated."""

    @property
    def fits(self) -> bool:
        """Whether it fits as asked."""
        return self.fit.fits

    def to_dict(self) -> JSON:
        """What `bench fit --json` prints; memory in bytes."""
        asked, weights = self.fit, self.fit.weights
        return {
            **_fit_to_dict(asked),
            "model": weights.model.name,
            "precision": weights.precision.name,
            "params": weights.model.params,
            "active": weights.model.active("both"),
            "weights_source": weights.source,
            "context": asked.context,
            "concurrency": asked.concurrency,
            "kv_bits": asked.kv_bits,
            "reserve": plain(asked.reserve),
            "smallest": [_fit_to_dict(each) for each in self.smallest],
            "with_host": [{**_fit_to_dict(each), "offload": plain(each.offload)} for each in self.with_host],
        }


def fit(model: PlacedModel, *, context: int = 4096, concurrency: int = 1, reserve_gib: float = 2.5, chunk: int = 8192) -> ModelFit:
    """Whether a model fits its hardware.

    context: tokens of a sequence, prompt and output. concurrency: sequences at once, over all replicas.
    reserve_gib: memory per device for driver, graphs and communication, in GiB. chunk: prompt tokens that are processed at once.
    UserError for a spread that does not divide the model.
    """
    asked = memory.fit(
        model.weights,
        model.machine,
        model.parallelism,
        context=context,
        concurrency=concurrency,
        kv_bits=model.kv_bits,
        reserve=Reserve(reserve_gib * GIB, chunk),
        offload=model.offload,
    )
    return ModelFit(asked, tuple(smallest(asked, devices().values())), tuple(most_on_device(asked)))


def _fit_to_dict(found: Fit) -> dict[str, JSON]:
    budget = found.budget
    return {
        "hardware": found.machine.name,
        "parallelism": plain(found.parallelism),
        "fits": found.fits,
        "why_not": found.why_not,
        "weights_bytes": {role.value: size for role, size in budget.weights.items()},
        "cache_bytes": budget.cache,
        "activations_bytes": budget.activations,
        "runtime_bytes": budget.runtime,
        "usable_bytes": budget.usable,
        "left_bytes": budget.left,
        "host_bytes": budget.host,
        "max_context": found.max_context,
        "max_concurrency": found.max_concurrency,
    }
