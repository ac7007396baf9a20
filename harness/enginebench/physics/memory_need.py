"""The memory that a deployment needs under a load, in words, and the reason where a limit is unknown."""

from __future__ import annotations

from dataclasses import dataclass

from enginebench.physics.machine import GB
from enginebench.physics.memory import Fit


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
