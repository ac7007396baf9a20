"""Can a cell be trusted? `judge` runs every check of `checks/` on a cell and gives a verdict with reasons.

`check` declares a check, `context` is what a check can look at. Does not know: tables, or how figures are computed.
"""

from enginebench.metrics.prefix_cache import CacheProof
from enginebench.validity.check import Check
from enginebench.validity.context import Context
from enginebench.validity.judge import VERDICTS, Judgement, Reason, Verdict, all_checks, judge, merged, worst

__all__ = ["VERDICTS", "CacheProof", "Check", "Context", "Judgement", "Reason", "Verdict", "all_checks", "judge", "merged", "worst"]
