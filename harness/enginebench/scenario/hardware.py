"""Checks the `hardware` of a scenario against the catalogue. Measures and computes nothing."""

from __future__ import annotations

from enginebench.errors import UserError
from enginebench.inputs.source import Source
from enginebench.scenario.schema import ScenarioFile


def check_hardware(written: ScenarioFile, source: Source) -> None:
    """UserError at its line for unknown hardware."""
    if written.hardware is None:
        return
    from enginebench.physics.detect import check  # reads the catalogue

    try:
        check(written.hardware)
    except UserError as error:
        raise source.error(error.message, ("hardware",), advice=error.advice) from None
