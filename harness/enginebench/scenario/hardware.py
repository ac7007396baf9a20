"""The machine that a scenario is meant for, checked against the catalogue; measures and reckons nothing."""

from __future__ import annotations

from enginebench.errors import UserError
from enginebench.scenario.schema import ScenarioFile
from enginebench.scenario.source import Source


def check_hardware(written: ScenarioFile, source: Source) -> None:
    """UserError at its line for hardware that is not known."""
    if written.hardware is None:
        return
    from enginebench.machines import check  # reads the catalogue

    try:
        check(written.hardware)
    except UserError as error:
        raise source.error(error.message, ("hardware",), advice=error.advice) from None
