"""Judges published performance claims.

`claims` reads them (`from_run`: from a stored run), `judge` and `statements` decide, with figures from `physics`. `outcome` and `page` show
the result, `reproduce` writes a scenario that tests a claim.
"""

from enginebench.audit.claims import Claims, Serving, read_claims
from enginebench.audit.judge import VERDICTS, Finding, Verdict
from enginebench.audit.statements import Contradiction, contradictions, judge_all

__all__ = ["VERDICTS", "Claims", "Contradiction", "Finding", "Serving", "Verdict", "contradictions", "judge_all", "read_claims"]
