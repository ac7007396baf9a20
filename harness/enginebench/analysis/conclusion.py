"""What is concluded from a run, as data: the whole answer, which the terminal, the page and JSON show in their own form.

`enginebench.analysis.conclude` fills it in. Conclusions hold for one regime (model x context x load); regimes with the same result are
merged into statements. Loads of different kinds, figures of different units and different lengths are never on one scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from enginebench.domain import Load
from enginebench.metrics.statistics import Estimate

Relation: TypeAlias = Literal["best", "behind", "probably behind", "equal", "cannot tell", "misses the SLO", "not comparable", "no figure"]
"""How a deployment compares with the best one of its regime. behind: surely, by the test over restarts. probably behind: every restart is
behind, but there are too few to be sure. equal: the difference is surely below the margin. cannot tell: none of these. not comparable:
invalid, failed or skipped."""

Outcome: TypeAlias = Literal["leads", "probably leads", "equal", "cannot tell", "alone", "none holds", "nothing"]
"""leads: surely better than every other. probably leads: better in every restart, but too few of them. equal: several share the lead, and
their differences are surely below the margin. cannot tell: the measurements do not separate the first ones. alone: a single deployment has
a figure. none holds: no deployment meets the SLO. nothing: there is no figure."""

Bound: TypeAlias = Literal["between", "at least", "none", "unknown"]
"""between: the limit lies between two measured levels. at least: the highest level that was tried still met the SLO. none: not even the
lowest did. unknown: no level could be judged."""

TrustLevel: TypeAlias = Literal["good", "partly", "indicative only"]


@dataclass(frozen=True)
class Margin:
    """By how much the best is better than another deployment: 0.05 is 5 % more of a figure where more is better, or 5 % less."""

    value: float
    low: float | None = None
    """Lower end of an interval over restarts; None for a single restart."""
    high: float | None = None
    coverage: float = 0.0
    """Probability that the interval holds the true difference; below 0.95 there are too few restarts."""


@dataclass(frozen=True)
class Standing:
    """A deployment in one regime."""

    deployment: str
    """Its name in the run, as `Row.name`."""
    row: int
    """Index in `Analysis.rows`: all figures, cells and reasons."""
    relation: Relation
    value: Estimate | None = None
    """The figure that decides, in the metric's unit."""
    share: float | None = None
    """Of the best, 1 for the best itself and less for the others, whichever direction is good; None without a figure."""
    margin: Margin | None = None
    """By how much the best is better; None for the best itself, and where the figure is 0."""
    suspect: bool = False
    """Whether a failed check can move its figures."""
    holds: bool | None = None
    """Whether it meets the SLO in more than half of its restarts; None: no SLO, or unknown."""
    agreed: bool = False
    """Whether all of two or more restarts agree on that."""
    note: str = ""
    """Why it cannot be told from the best, or is not comparable."""
    left_out: Literal["", "failed", "invalid"] = ""
    """Why a row that was asked for has no figure to compare; '' for every other."""


@dataclass(frozen=True)
class Scale:
    """Regimes that may stand in one grid: one model, one kind of load, one figure, the same settings."""

    model: str
    kind: str
    """'closed loop', 'open loop', 'trace': `Load.kind`."""
    settings: str
    """What else distinguishes its loads from others of the run: 'prompts text'; usually ''."""
    figure: str
    """The figure that decides: 'output_throughput', or 'goodput' with an SLO."""
    unit: str
    """Of the figure: 'tok/s'."""
    better: Literal["higher", "lower"]
    contexts: tuple[str, ...]
    """Lengths of prompt and output, in rising order: `Load.shape_text`."""
    levels: tuple[str, ...]
    """In rising order: `Load.level_text`."""
    deployments: tuple[str, ...]
    """In the order of the run."""
    scope: str = ""
    """What the weights restrict the result to, as a clause; '' for trained weights."""


@dataclass(frozen=True)
class Regime:
    """What is known at one context and level of a scale."""

    load: Load
    context: str
    level: str
    outcome: Outcome
    standings: tuple[Standing, ...]
    """Best first; then those without a figure."""
    leaders: tuple[str, ...] = ()
    """The best, and those that are equal to it or cannot be told from it."""
    margin: Margin | None = None
    """Of the best over the first that is not a leader."""
    runner_up: str = ""
    """Name of that deployment."""
    sure: bool = False
    """Whether the outcome is shown by the test over restarts."""
    why: str = ""
    """Why it is not sure."""
    suspect: bool = False
    """Whether a failed check of a leader or the runner-up may change the outcome."""

    @property
    def best(self) -> Standing | None:
        return next((each for each in self.standings if each.relation == "best"), None)


@dataclass(frozen=True)
class Statement:
    """Regimes of one scale with the same leaders, as a sentence."""

    outcome: Outcome
    leaders: tuple[str, ...]
    where: str
    """'from 16 streams with prompts up to 1,024 tokens'; '' for every load that was tried."""
    lead: str
    """'3-5 % ahead of vllm'; '' where nothing is ahead."""
    sure: int
    """Number of its regimes whose outcome is sure."""
    of: int
    """Number of its regimes."""
    text: str
    """The whole sentence, without `why`."""
    regimes: tuple[tuple[str, str], ...]
    """(context, level) of each regime."""
    why: str = ""
    """Why it is not sure; statements of one grid often share it."""
    suspect: bool = False


@dataclass(frozen=True)
class Grid:
    """One scale with its regimes and the statements that merge them, the most important first."""

    scale: Scale
    regimes: tuple[Regime, ...]
    statements: tuple[Statement, ...]
    others: tuple[str, ...] = ()
    """Sentences about deployments that lead nowhere: 'llamacpp: 12-51 % of the best'."""
    left_out: tuple[str, ...] = ()
    """Sentences about those that have no figure to compare: 'vllm failed at 64 streams'."""

    def at(self, context: str, level: str) -> Regime | None:
        return next((each for each in self.regimes if (each.context, each.level) == (context, level)), None)


@dataclass(frozen=True)
class Capacity:
    """The highest load that a deployment holds within the SLO, over all levels that were measured with one context."""

    model: str
    deployment: str
    context: str
    settings: str
    over: Literal["rate", "concurrency"]
    unit: str
    """'req/s' or 'streams'."""
    bound: Bound
    level: float | None
    """Where the fitted attainment crosses the SLO's share; the highest level tried for 'at least'; None for 'none' and 'unknown'."""
    low: float | None
    """95 % interval: a level that surely holds; None below the lowest level."""
    high: float | None
    """And one that surely does not; None above the highest level."""
    holds: float | None
    """The highest measured level that met the SLO, as do those below it after the fit; a level to name. None: there is none."""
    restarts: int
    cells: int
    rows: tuple[int, ...]
    """Indices in `Analysis.rows` of the levels behind it."""
    sure: bool = False
    """Whether it surely holds more than the next deployment with this context."""
    goodput: float | None = None
    """Requests/s within the SLO at `holds`."""
    throughput: float | None = None
    """Output tok/s at `level`, interpolated between cells."""
    cost: float | None = None
    """Money per million output tokens at `level`; None without prices."""
    nearest: str = ""
    """For 'none': the share of the requests that met the SLO at the lowest level."""
    doubts: tuple[str, ...] = ()
    """What a reader must know about the cells behind it."""
    searched: bool = False
    """Whether a search chose the levels."""
    text: str = ""
    """'4.8 req/s [4.2-5.7]'."""


@dataclass(frozen=True)
class Cause:
    """One reason not to rely on the figures, over all cells that it affects."""

    id: str
    """Id of the validity check, or 'restarts', 'failed', 'missing', 'short', 'stated', 'outlier'."""
    text: str
    """What is wrong, with the number of cells: 'the machine was busy in 12 of 32 cells'."""
    fix: str
    """What to type or change."""
    cells: int
    of: int
    details: tuple[str, ...] = ()
    """What was measured, the worst first."""


@dataclass(frozen=True)
class Trust:
    level: TrustLevel
    causes: tuple[Cause, ...]
    """The commonest first; () for good."""
    text: str
    """One line: 'partly: the machine was busy in 12 of 32 cells. Fix: bench run quickstart --wait-quiet 60s'."""

    @property
    def cause(self) -> Cause | None:
        return self.causes[0] if self.causes else None


@dataclass(frozen=True)
class Choice:
    """What to run for one model if the load is mixed or unknown."""

    model: str
    deployment: str
    text: str
    """Why: 'best or within 3 % of the best at 7 of 9 loads, never below 94 %'."""
    command: str
    """The shell command that started its server; '' for an attached server or a figure of another tool."""


@dataclass(frozen=True)
class Conclusion:
    """The whole answer of a run."""

    sentence: str
    """What to run and why, by regime, as one paragraph: the headline."""
    by_model: Mapping[str, str]
    """Model -> its part of the sentence."""
    grids: tuple[Grid, ...]
    capacities: tuple[Capacity, ...]
    """With an SLO: by model and context, the highest load first."""
    choices: tuple[Choice, ...]
    trust: Trust
    equal_within: float | None
    """The margin below which a difference is equal in practice, if it was set for this run; None: that of each metric."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """'model/deployment' -> the shell command that started its server."""
