"""What a validity check is: one function with the sentence, thresholds and advice that every output shows.

Declares; does not know particular checks (`enginebench.validity.checks`) and runs none (`enginebench.validity.judge`).
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Literal, Self, TypeAlias

from enginebench.domain import JSON, plain
from enginebench.domain.formatting import percent
from enginebench.metrics.registry import Trait
from enginebench.validity.context import Context, Requirement

Severity: TypeAlias = Literal["scoped", "suspect", "invalid"]
"""scoped: the figures are sound, but hold only within a scope, such as random weights, which the conclusion states."""

Unit: TypeAlias = Literal["", "share", "ms", "s", "tokens", "requests", "steps", "readings", "MB/s"]


class Threshold(float):
    """A limit with its unit. It compares like a number and prints as text ('5 %', '0.5 s')."""

    unit: Unit

    def __new__(cls, value: float, unit: Unit = "") -> Self:
        threshold = super().__new__(cls, value)
        threshold.unit = unit
        return threshold

    def __str__(self) -> str:
        if self.unit == "share":
            return percent(self)
        unit = self.unit.removesuffix("s") if float(self) == 1 and self.unit not in ("s", "ms") else self.unit
        return f"{float(self):g} {unit}".rstrip()


@dataclass(frozen=True)
class Finding:
    """One problem that a check has found in a cell."""

    severity: Severity
    detail: str
    """What was measured, with figures and the limit: 'the client used 97 % of a core (limit 80 %)'."""
    withholds: bool = False
    """Whether the metrics with the check's `withholds` traits mean nothing in this cell."""
    advice: str = ""
    """What to type or change next, if the check's advice does not fit this cause."""
    excess: float = 1.0
    """How bad it is, such as measured value / limit. Of many cells with one cause, a table shows the worst."""


Function: TypeAlias = Callable[[Context], Iterator[Finding]]


@dataclass(frozen=True, eq=False)
class Check:
    """One validity check, as `check` declares it."""

    id: str
    """Name of the function. Stored exports use it: never rename it."""
    meaning: str
    """What a finding means for the figures, one clause: 'the client may be the bottleneck'."""
    when: Mapping[Severity, str]
    """Severity -> condition, with the values of the thresholds filled in."""
    advice: str
    """What to type or change next."""
    function: Function
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    """Name -> the limits that the conditions state."""
    needs: tuple[Requirement, ...] = ()
    """Without this evidence the check is 'not checkable', which is not 'passed'."""
    withholds: tuple[Trait, ...] = ()
    """Traits of the metrics that a finding may withhold."""

    @property
    def sentence(self) -> str:
        """'invalid if ...; suspect if ...'."""
        return "; ".join(f"{severity} if {condition}" for severity, condition in self.when.items())

    @property
    def data(self) -> JSON:
        """Everything but the code, for exports."""
        return {
            "id": self.id, "topic": self.topic, "severities": list(self.when), "meaning": self.meaning, "when": plain(self.when),
            "thresholds": {name: {"value": float(limit), "unit": limit.unit} for name, limit in self.thresholds.items()},
            "advice": self.advice, "withholds": [trait.name.lower() for trait in self.withholds],
            "needs": [evidence.name for evidence in self.needs],
        }  # fmt: skip

    @property
    def topic(self) -> str:
        """Name of the module that declares it: 'client', 'engine', ..."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def explanation(self) -> str:
        """Docstring of the function: why the check exists and how it decides."""
        return inspect.getdoc(self.function) or ""

    def lacking(self, context: Context) -> str | None:
        """The first piece of evidence that the cell lacks; None if the check can run."""
        return next((evidence.name for evidence in self.needs if not evidence.present(context)), None)


def check(
    *, meaning: str, when: Mapping[Severity, str], advice: str, needs: tuple[Requirement, ...] = (), withholds: tuple[Trait, ...] = ()
) -> Callable[[Function], Check]:
    """Declare the decorated function as a validity check; its name is the id.

    `when` holds a condition per severity, worst first. '{SHORTEST}' in it stands for the module's threshold of that name, so a condition
    states the limit that the code applies. KeyError where the module has no such name above the function.
    """

    def declare(function: Function) -> Check:
        names = [name for condition in when.values() for _, name, _, _ in Formatter().parse(condition) if name]
        limits = {name: function.__globals__[name] for name in names}
        conditions = {severity: condition.format_map(limits) for severity, condition in when.items()}
        thresholds = {name.lower(): limit for name, limit in limits.items()}
        return Check(function.__name__, meaning, conditions, advice, function, thresholds, needs, withholds)

    return declare
