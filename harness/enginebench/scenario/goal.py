"""The `slo` of a scenario as `enginebench.metrics.slo` reads it, or an error at its line."""

from __future__ import annotations

from enginebench.errors import UserError
from enginebench.inputs.source import Location, Source
from enginebench.metrics.slo import Slo, parse
from enginebench.scenario.schema import SLO


def slo_of(written: SLO | None, source: Source) -> Slo | None:
    """The SLO; None if the scenario has none. UserError for an unknown preset, and for an SLO without limits."""
    if written is None:
        return None
    try:
        return parse(written.model_dump())
    except UserError as error:
        at: Location = tuple((error.key or "slo").split("."))
        raise source.error(error.message, at if at in source.lines else ("slo",), advice=error.advice) from None
