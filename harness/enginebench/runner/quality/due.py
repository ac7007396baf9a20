"""What a scenario asks of a deployment's quality that is not measured yet: a run that was measured without it, or before it asked for more.

What could not be measured is not asked for again: its reason is in the record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from enginebench.domain import Deployment
from enginebench.domain.ids import text_of
from enginebench.domain.quality import PerplexityCheck, QualityCheck, TaskCheck
from enginebench.records.launch import latest_quality
from enginebench.records.quality import QualityRecord, Scored
from enginebench.records.run_folder import Run
from enginebench.scenario.plan import Plan

_TEXT = ("perplexity", "under_load", "predictions", "continuations")


@dataclass(frozen=True)
class Due:
    text: bool
    """Whether the text is to be scored: all figures of it are measured together."""
    tasks: tuple[TaskCheck, ...]

    def __bool__(self) -> bool:
        return self.text or bool(self.tasks)


def lacking(check: QualityCheck, known: QualityRecord | None) -> Due:
    """What of the check is not in the record."""
    if known is None:
        return Due(text=True, tasks=check.tasks)
    wanted = {
        "perplexity": True, "under_load": check.under_load, "predictions": check.divergence is not None,
        "continuations": check.divergence is not None and check.divergence.prompts > 0,
    }  # fmt: skip
    absent = any(asked and not getattr(known, part) and part not in known.missing for part, asked in wanted.items())
    other = known.perplexity is not None and not _by_rule(known.perplexity, check.perplexity)
    measured = {*known.missing, *(task.asked or task.task for task in known.tasks)}
    return Due(absent or other, tuple(each for each in check.tasks if each.name not in measured))


def _by_rule(scored: Scored, check: PerplexityCheck) -> bool:
    """A text may have fewer windows than were asked for."""
    rule = scored.rule
    same = (rule.text, rule.window, rule.stride, rule.scored) == (check.text, check.window, check.step, check.last)
    return same and check.windows in (rule.windows, scored.wanted)


def of_tasks(known: QualityRecord) -> dict[str, str]:
    """Why tasks could not be measured."""
    return {name: why for name, why in known.missing.items() if name not in _TEXT}


def unmeasured(check: QualityCheck, known: QualityRecord | None, why: str) -> QualityRecord:
    """The record where nothing that is due could be measured, for this reason."""
    its, parts = lacking(check, known), known or QualityRecord()
    lost = {part: why for part in _TEXT if its.text and not getattr(parts, part)} | {task.name: why for task in its.tasks}
    return replace(parts, missing={**parts.missing, **lost})


def quality_due(run: Run, plan: Plan) -> list[Deployment]:
    """The deployments that were measured, but not all that the scenario asks of their quality."""
    check = plan.scenario.quality
    if check is None:
        return []
    ran = {text_of(cell.deployment) for cell in run.cells() if cell.status == "ok"}
    launches = run.launches()
    deployments = {text_of(cell.deployment): cell.deployment for cell in plan.cells}
    return [its for text, its in deployments.items() if text in ran and lacking(check, latest_quality(launches, its))]
