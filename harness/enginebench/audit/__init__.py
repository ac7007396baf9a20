"""What published numbers imply: `claims` reads them, `judge` and `statements` decide, `reproduce` writes the scenario that would test them.

`physics` is all they know of models and machines. `page` and `table` show the outcome; a stored run is audited through `from_run`.
"""

from enginebench.audit.claims import Claims, Serving, read_claims
from enginebench.audit.judge import VERDICTS, Finding, Verdict
from enginebench.audit.statements import Contradiction, contradictions, judge_all

__all__ = ["VERDICTS", "Claims", "Contradiction", "Finding", "Serving", "Verdict", "contradictions", "judge_all", "read_claims"]
