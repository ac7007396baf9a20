"""Two runs of the same scenario, then and now: what changed around them, which figures changed, and whether a threshold is broken.

Works on analyses, so on whatever a report can show. Knows no file, no command line and no engine.
"""

from enginebench.compare.changes import Changed
from enginebench.compare.pairs import Comparison, Figure, Pair, compare_runs
from enginebench.compare.render import to_data, to_markdown, to_text
from enginebench.compare.rules import Finding, Rule, judge, parse_rule

__all__ = [
    "Changed",
    "Comparison",
    "Figure",
    "Finding",
    "Pair",
    "Rule",
    "compare_runs",
    "judge",
    "parse_rule",
    "to_data",
    "to_markdown",
    "to_text",
]
