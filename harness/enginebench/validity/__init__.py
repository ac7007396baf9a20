"""Can this cell be trusted? `judge` gives a verdict with reasons, `withheld` says which figures must not be shown.

`validity` judges what the server answered, `inside` what it said of itself, `delivery` the load that was sent, `hardware` what
the machine did; `checks` names everything that can be wrong. Does not know: tables, or how figures are computed.
"""

from enginebench.validity.checks import Check, Reason
from enginebench.validity.engine import CacheProof, cache_proof
from enginebench.validity.judge import VERDICTS, Verdict, judge, judge_stated, not_checkable, withheld

__all__ = ["VERDICTS", "CacheProof", "Check", "Reason", "Verdict", "cache_proof", "judge", "judge_stated", "not_checkable", "withheld"]
