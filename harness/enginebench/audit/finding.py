"""What the audit says about a claim: the verdict, the figures that it rests on, and the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from enginebench.audit.claims import Serving
from enginebench.errors import UserError

Verdict: TypeAlias = Literal["plausible", "needs batch", "impossible as stated", "inconsistent", "not enough stated", "not known here"]
VERDICTS: tuple[Verdict, ...] = ("impossible as stated", "inconsistent", "needs batch", "not enough stated", "not known here", "plausible")
"""Worst first."""
FAILED: frozenset[Verdict] = frozenset({"impossible as stated", "inconsistent"})


@dataclass(frozen=True)
class Finding:
    id: str
    source: str
    claim: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    """Sentences, decisive ones first."""
    decides: tuple[str, ...] = ()
    """What the verdict depends on, beyond the model and the device: 'precision', 'batch', 'routing', 'placement', ..."""
    off_by: float = 1.0
    """Factor between what is stated and what is possible or true; 1.0 also if there is none."""
    stated: float | None = None
    """The judged rate, output tokens/s."""
    ceiling: float | None = None
    """The highest possible rate at `batch`."""
    batch: int | None = None
    least: int | None = None
    """The smallest batch at which the rate is possible."""
    least_even: int | None = None
    """The smallest batch at which it is reached if all experts are used equally; None also if no batch does."""
    limit: str | None = None
    highest: float | None = None
    """If no batch is stated: the ceiling at the largest batch that fits, highest_batch."""
    even: float | None = None
    """The estimate with even routing at `highest_batch`, or at `batch` if that is stated; None for a dense model."""
    highest_batch: int | None = None
    serving: Serving | None = field(default=None, repr=False)

    def judged(self, verdict: Verdict, reason: str, **figures: Any) -> Finding:
        """With a verdict, its decisive reason and its figures."""
        return replace(self, verdict=verdict, reasons=(reason, *self.reasons), **figures)

    def also(self, *reasons: str) -> Finding:
        return replace(self, reasons=(*self.reasons, *reasons))

    @property
    def top(self) -> tuple[float, int] | None:
        """The ceiling in tokens/s at the stated batch, or at the largest that fits; with that batch. None without a ceiling."""
        if self.highest is not None and self.highest_batch is not None:
            return self.highest, self.highest_batch
        return (self.ceiling, self.batch) if self.ceiling is not None and self.batch is not None else None

    @property
    def share(self) -> float | None:
        """Stated rate / ceiling. Above 1 the claim is impossible."""
        return self.stated / self.ceiling if self.stated is not None and self.ceiling else None

    @property
    def text(self) -> str:
        return f"needs batch >= {self.least}" if self.verdict == "needs batch" else self.verdict


class Judged(NamedTuple):
    """The verdict on a statement that is not a speed."""

    verdict: Verdict
    reasons: Sequence[str]
    off_by: float = 1.0


def apart(a: float, b: float) -> float:
    """The factor between two positive figures, 1.0 or more."""
    return max(a / b, b / a)


def gap(error: UserError) -> Verdict:
    """Whether enginebench lacks a model, a device, a precision or the effect of an option, or the claim states too little."""
    return "not known here" if error.key in ("model", "hardware", "precision", "options") else "not enough stated"
