"""What another tool means by its metrics, and what is known to be wrong with how it measures: data that each importer declares.

docs/dialects.md is generated from it, and an importer reads the figures of a file through it, so the table and the code cannot differ.
Maps by definition: a figure becomes one of ours only if it means the same, whatever it is called.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Concept: TypeAlias = Literal[
    "TTFT", "TPOT", "ITL", "E2E", "output throughput", "request throughput", "lengths", "client queue", "percentiles", "goodput"
]
CONCEPTS: tuple[Concept, ...] = get_args(Concept)
"""What every importer has to say of its tool."""


STATISTICS: Mapping[str, str] = {"": "", "median": "p50", "p50": "p50", "p90": "p90", "p99": "p99"}
"""The usual words for the statistics that have a figure here."""


@dataclass(frozen=True)
class Term:
    """One metric, or one rule, of a tool."""

    concept: Concept
    theirs: str
    """The name in the tool's file: 'ttft'; '-' if it has none."""
    means: str
    """Its definition, as the tool's code computes it."""
    becomes: str = ""
    """The metric here that means the same ('ttft'); empty: there is no equal, so it is kept under its own name and never compared."""
    factor: float = 1.0
    """Value in the metric's unit / value in the file."""
    differs: str = ""
    """What is unlike nevertheless, as a clause: 'the set-up of the connection is inside'. Figures that differ so are not compared with
    others."""
    in_samples: bool = False
    """Whether single requests differ so as well, not only the tool's aggregates."""


@dataclass(frozen=True)
class Caveat:
    """A known fault of a tool."""

    text: str
    """What is wrong, as a clause with its size: 'its TTFT is 46 ms late on average at 256 streams'."""
    measured: str = ""
    """Where the size comes from: 'docs/fidelity.md'. Empty: the size is not measured."""
    from_streams: int = 0
    """Requests in flight from which it applies."""
    before: str = ""
    """The first version without it; empty: it was in every version that was looked at."""

    def applies(self, streams: int | None, version: str | None) -> bool:
        """Whether it applies to a load with so many requests in flight; None: unknown. An unknown version may have it."""
        if self.before and version is not None and _numbers(version) >= _numbers(self.before):
            return False
        return streams is None or streams >= self.from_streams

    @property
    def sentence(self) -> str:
        return f"{self.text} ({self.measured})" if self.measured else self.text


@dataclass(frozen=True)
class Dialect:
    """Everything that an importer declares about its tool."""

    terms: tuple[Term, ...]
    caveats: tuple[Caveat, ...] = ()

    def undeclared(self) -> list[Concept]:
        """The concepts of which it says nothing."""
        return [concept for concept in CONCEPTS if concept not in {term.concept for term in self.terms}]

    def differs(self, *, samples: bool) -> dict[str, str]:
        """Metric -> how the tool's meaning differs from it. samples: of a cell with single requests, not with the tool's aggregates."""
        return {term.becomes: term.differs for term in self.terms if term.becomes and term.differs and (term.in_samples or not samples)}

    @property
    def percentiles(self) -> str:
        return next((term.means for term in self.terms if term.concept == "percentiles"), "")

    def term(self, theirs: str) -> Term:
        """The term with this name in the tool's file. KeyError if the table has none."""
        return next((term for term in self.terms if term.theirs == theirs), None) or _missing(theirs)

    def figures(
        self, theirs: str, values: Mapping[str, float], statistics: Mapping[str, str] = STATISTICS
    ) -> tuple[dict[str, float], dict[str, float]]:
        """(figures, own figures) of one metric of the file. values: statistic -> value. statistics: the tool's word for a statistic -> the
        percentile that it is ('p50'), or '' of a figure that has only one value. Others, such as a mean, are kept under their own name.
        """
        term, ours, own = self.term(theirs), dict[str, float](), dict[str, float]()
        for statistic, value in values.items():
            percentile = statistics.get(statistic)
            if term.becomes and percentile is not None:
                ours[f"{term.becomes}_{percentile}" if percentile else term.becomes] = value * term.factor
            else:
                own[f"{theirs}.{statistic}" if statistic else theirs] = value
        return ours, own


def not_reported(*concepts: Concept) -> tuple[Term, ...]:
    """The terms of what a tool does not report."""
    return tuple(Term(concept, "-", "not reported") for concept in concepts)


def _missing(theirs: str) -> Term:
    raise KeyError(f"the dialect table has no entry for '{theirs}'")


def faults_of(dialect: Dialect, streams: int | None, version: str | None) -> tuple[str, ...]:
    """The caveats about what a tool cannot do with so many requests in flight; none where their number is unknown."""
    known = [caveat for caveat in dialect.caveats if caveat.from_streams and streams is not None]
    return tuple(caveat.sentence for caveat in known if caveat.applies(streams, version))


def caveats_of(dialect: Dialect, streams: int | None, version: str | None) -> tuple[str, ...]:
    """The caveats that apply to a load, most of them to every one."""
    return tuple(caveat.sentence for caveat in dialect.caveats if caveat.applies(streams, version))


def _numbers(version: str) -> list[int]:
    """'0.8.1.post1+cpu' -> (0, 8, 1)."""
    found: list[int] = []
    for part in version.lstrip("v").split("+")[0].split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return found
