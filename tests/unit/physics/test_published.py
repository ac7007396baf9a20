"""Published rates against the bound: no measurement may be above it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import published  # noqa: E402  # a script beside the package

FOUND = published.read_points()
POINTS = [point for point in FOUND.points if point.series.setting is not None]  # the bounds are computed when the tests run


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point.what} {point.held}+{point.output} x{point.sequences}")
def test_no_measurement_is_above_its_bound(point: published.Point) -> None:
    assert point.share is not None
    assert point.share < 1, f"{point.measured:,.1f} tok/s measured, {point.bound:,.1f} allowed ({FOUND.sources[point.series.source].url})"


def test_there_are_many_kinds() -> None:
    """Of several engines, models and devices, beside the 88 of the first collection."""
    assert len(POINTS) >= 88 + 150
    for kinds, least in (("model", 9), ("hardware", 24), ("engine", 7), ("source", 14)):
        assert len({getattr(point.series, kinds) for point in POINTS}) >= least, kinds


def test_bounds_are_no_looser_than_they_must_be() -> None:
    """One stream of a dense model in 16 bits reaches above four fifths of the bound somewhere, so the bound is tight."""
    assert max(point.share or 0 for point in POINTS) > 0.8


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "points.yaml"
    text = published.POINTS.read_text()
    file.write_text(text.replace("    kv_precision: fp8", "    kv_bits: 8", 1))
    with pytest.raises(ValidationError, match="kv_bits"):
        published.read_points(file)
    file.write_text(text.replace("  - source: SPARK", "  - source: SPRAK", 1))
    with pytest.raises(ValueError, match="SPRAK"):
        published.read_points(file)
