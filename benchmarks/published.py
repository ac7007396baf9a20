"""Compares decode rates that others have published with the bound and the even estimate. `make bench-ceiling-published`.

None may be above the bound. The rates are those of `published_points.yaml`, whose rows name the tokens that a sequence held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from enginebench.audit.claims import Serving
from enginebench.audit.physics import Physics

POINTS = Path(__file__).with_name("published_points.yaml")


@dataclass(frozen=True)
class Point:
    """One published rate with what physics allows, output tokens/s."""

    claim: Serving
    measured: float
    bound: float
    even: float

    @property
    def share(self) -> float:
        return self.measured / self.bound

    @property
    def what(self) -> str:
        """'gpt-oss-120b mxfp4, llamacpp on dgx-spark'."""
        return f"{self.claim.model} {self.claim.precision}, {self.claim.engine} on {self.claim.hardware}"


def points(file: Path = POINTS) -> Iterator[Point]:
    """Every point of the file. KeyError for a source that is not listed."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    physics = Physics()
    for series in document["series"]:
        rows, source = series.pop("rows"), document["sources"][series["source"]]
        for held, output, sequences, rate in rows:
            more: dict[str, Any] = {"id": "point", "says": source["title"], "isl": max(1, held), "osl": output, "concurrency": sequences}
            claim = Serving.model_validate({**series, **more, "output_tok_s": rate})
            ceiling = physics.ceiling(claim, sequences)
            yield Point(claim, rate, ceiling.tok_s, ceiling.even or ceiling.tok_s)


def main() -> None:
    print(f"{'share':>6} {'of even':>8} {'tok/s':>8} {'bound':>8} {'even':>8} {'batch':>6} {'held':>7}")
    found = sorted(points(), key=lambda point: -point.share)
    for each in found:
        figures = f"{each.measured:8,.0f} {each.bound:8,.0f} {each.even:8,.0f} {each.claim.concurrency:6} {each.claim.isl:7,}"
        print(f"{each.share:6.0%} {each.measured / each.even:8.0%} {figures}  {each.what}")
    print(f"{len(found)} points, the highest at {found[0].share:.0%} of its bound")


if __name__ == "__main__":
    main()
