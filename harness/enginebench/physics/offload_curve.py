"""What of a model should stay on a card that is too small for it. Data out; formatting it for people is left to the caller."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

from enginebench.domain import JSON, Parallelism
from enginebench.errors import UserError
from enginebench.physics import memory
from enginebench.physics.advisor import LLAMACPP, Split, knee, plan, splits
from enginebench.physics.catalogue import read_machine
from enginebench.physics.machine import GB, GIB, Host
from enginebench.physics.memory import Fit
from enginebench.physics.named_model import read_weights
from enginebench.physics.placed import kv_bits, read_popularity


@dataclass(frozen=True)
class OffloadCurve:
    """Every split of a model between one card and the host's memory that llama.cpp has a flag for, with its ceiling."""

    splits: tuple[Split, ...]
    """By rising number of layers whose experts (of a dense model: everything) lie on the host; the first has none there."""

    @property
    def whole(self) -> Fit:
        """Everything on the card, whether or not that fits."""
        return self.splits[0].fit

    @cached_property
    def best(self) -> Split | None:
        """The fastest split that fits; None when none does."""
        return plan(self.splits)

    @cached_property
    def knee(self) -> Split | None:
        """The first split at which the host's memory takes longer than the card; None when there is none."""
        return knee(self.splits)

    @property
    def title(self) -> str:
        """'gpt-oss-120b in mxfp4, 61.1 GB, on 1x rtx4090 + 128 GB'."""
        weights = self.whole.weights
        return f"{weights.model.name} in {weights.precision.name}, {weights.bytes / 1e9:.4g} GB, on {self.whole.machine.name}"

    @property
    def host(self) -> Host:
        """The host's memory."""
        host = self.whole.machine.host
        assert host is not None  # noqa: S101  # `offload_curve` refuses a machine without one
        return host

    def page(self) -> str:
        """The curve as an HTML page that opens offline."""
        from enginebench.physics.plot import page_of_splits

        return page_of_splits(self.title, self.splits)

    def to_dict(self) -> JSON:
        """What `bench offload --json` prints; memory in bytes."""
        whole = self.whole
        return {
            "model": whole.weights.model.name,
            "precision": whole.weights.precision.name,
            "weights_source": whole.weights.source,
            "hardware": whole.machine.name,
            "host_bandwidth": self.host.bandwidth,
            "context": whole.context,
            "concurrency": whole.concurrency,
            "kv_bits": whole.kv_bits,
            "plan": self.best.layers if self.best else None,
            "knee": self.knee.layers if self.knee else None,
            "curve": [_split_to_dict(each) for each in self.splits],
        }


def offload_curve(
    model: str,
    hardware: str,
    *,
    precision: str | None,
    kv: str,
    host_gb_s: float | None,
    context: int,
    concurrency: int,
    routing: str,
    reserve_gib: float,
    supported: Collection[str] | None,
) -> OffloadCurve:
    """Arguments and errors: `enginebench.api.offload`. supported: the precisions that llama.cpp has; None: any."""
    machine = read_machine(hardware, host_bandwidth=host_gb_s * GB if host_gb_s else None)
    if machine.host is None:
        raise UserError(f"--hardware {hardware} names no memory beside the card", advice=f"write for example {hardware}+128gb")
    if machine.count != 1:
        advice = "name one card, or ask bench fit --pp"
        raise UserError(f"--hardware {hardware}: the split over several cards is not computed here", advice=advice)
    weights = read_weights(model, precision)
    if supported is not None and weights.precision.name not in supported:
        raise UserError(f"llama.cpp has no {weights.precision.name}", key="precision", advice="name one of its own: --precision q4_k_m")
    whole = memory.fit(
        weights,
        machine,
        Parallelism(),
        context=context,
        concurrency=concurrency,
        kv_bits=kv_bits(kv),
        reserve=replace(LLAMACPP, runtime=reserve_gib * GIB),
    )
    return OffloadCurve(tuple(splits(whole, read_popularity(routing, weights))))


def _split_to_dict(split: Split) -> JSON:
    return {
        "layers": split.layers,
        "fits": split.fit.fits,
        "why_not": split.fit.why_not,
        "device_bytes": split.device_bytes,
        "host_bytes": split.fit.budget.host,
        "left_bytes": split.fit.budget.left,
        "tokens_per_s": split.step.tokens_per_s,
        "rules": split.step.bottleneck,
        "options": dict(split.options),
        "flags": split.flags,
    }
