"""Compares the measurements of `ceiling.py` with predictions; writes the tables between the markers of docs/physics-on-cpu.md, and its
plot.

The ceiling uses no measurement of the engine: only the bandwidth that numpy reaches, and its float32 products times two (16 bits) or four
(8 bits). The prediction uses two measurements of the engine's dense model per precision: operations/s of products with one row (batch 1)
and of matrix products (the largest batch). All mixtures, and all batches between, are predicted from these.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ceiling import PROMPT, SHAPES, STEPS
from enginebench.physics import Device, Machine, Role, Setting, Step, Weights, decode, read_weights

Case = tuple[str, str]
"""Shape and precision."""
Point = tuple[Case, int]
"""A case at a batch."""
BEGIN, END = "<!-- benchmarks/predicted.py writes from here", "<!-- to here -->"
WITHIN = 0.25
"""Tolerated error of a predicted ratio."""
_CONTEXT = PROMPT + STEPS[1] / 2


@dataclass(frozen=True)
class Measured:
    """The best pass for each case and batch, by median step, and the best limits of the machine."""

    rows: Mapping[Point, Mapping[str, Any]]
    bandwidth: float
    """Bytes/s."""
    fp32: float
    """Operations/s."""

    def step_s(self, case: Case, batch: int) -> float:
        return float(self.rows[case, batch]["step_s"])

    @property
    def cases(self) -> list[Case]:
        return list(dict.fromkeys(case for case, _ in self.rows))

    @property
    def device(self) -> Device:
        """The CPU as in `bench ceiling --hardware cpu`."""
        return Device("cpu", 1e12, self.bandwidth, {"fp32": self.fp32, "bf16": 2 * self.fp32, "int8": 4 * self.fp32})


def read(file: Path) -> Measured:
    """Read the lines of JSON that `ceiling.py` writes."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    best: dict[Point, Mapping[str, Any]] = {}
    for line in sorted(lines, key=lambda line: line["step_s"]):
        best.setdefault(((line["shape"], line["precision"]), line["batch"]), line)
    order = {shape: i for i, shape in enumerate(SHAPES)}
    rows = dict(sorted(best.items(), key=lambda item: (order[item[0][0][0]], item[0][0][1], item[0][1])))
    return Measured(rows, max(line["bytes_s"] for line in lines), max(line["fp32"] for line in lines))


@cache
def weights_of(case: Case, *, routed: bool = True) -> Weights:
    """Weights by dimensions. routed: include the routed experts."""
    weights = read_weights(SHAPES[case[0]], case[1])
    return weights if routed else replace(weights, parts=tuple(part for part in weights.parts if part.role != Role.EXPERT))


def ceiling(measured: Measured, case: Case, batch: int, *, routed: bool = True) -> Step:
    return decode(Setting(weights_of(case, routed=routed), Machine(measured.device)), batch, _CONTEXT)


def operations(measured: Measured, case: Case, batch: int, *, routed: bool = True) -> float:
    """Operations of one step."""
    step = ceiling(measured, case, batch, routed=routed)
    return step.seconds["compute"] * measured.device.flops[step.arithmetic]


def rates(measured: Measured, precision: str) -> tuple[float, float]:
    """Operations/s of the dense model at batch 1 and at the largest batch. The time of a step beyond reading the weights is compute."""
    dense = ("dense", precision)
    spare = {batch: measured.step_s(dense, batch) - ceiling(measured, dense, batch).seconds["memory"] for batch in (1, max(STEPS))}
    row, matrix = (operations(measured, dense, batch) / spare[batch] for batch in spare)
    return row, matrix


def predicted(measured: Measured, case: Case, batch: int) -> float:
    """Seconds of a step: reads, then compute. llama.cpp multiplies experts row by row, everything else as matrices from batch 2 on."""
    row, matrix = rates(measured, case[1])
    always = operations(measured, case, batch, routed=False)
    experts = operations(measured, case, batch) - always
    memory = ceiling(measured, case, batch).seconds["memory"]
    return memory + experts / row + always / (matrix if batch > 1 else row)


def comparisons(measured: Measured) -> Iterator[tuple[str, str, Point, Point]]:
    """(kind, label, first, second): pairs of points to compare."""
    cases = measured.cases
    for shape, precision in cases:
        case = (shape, precision)
        yield "batch 8 / batch 1", f"{shape} {precision}, batch 8 / batch 1", (case, 8), (case, 1)
        for batch in (1, 8):
            if shape != "dense":
                yield "mixture / dense", f"{shape} / dense, {precision}, batch {batch}", (case, batch), (("dense", precision), batch)
            for wider in ("q8_0", "f16"):
                if precision == "q4_0" and (shape, wider) in cases:
                    yield "precision", f"{shape}, q4_0 / {wider}, batch {batch}", (case, batch), ((shape, wider), batch)


def calibrates(point: Point) -> bool:
    """Whether the prediction is calibrated with this point."""
    return point[0][0] == "dense" and point[1] in (1, max(STEPS))


def ratios(measured: Measured) -> Iterator[tuple[str, str, float, float, float]]:
    """(kind, label, measured, predicted, by the ceiling alone): speed of the first point / speed of the second."""
    for kind, label, first, second in comparisons(measured):
        if calibrates(first) and calibrates(second):
            continue
        scale = first[1] / second[1]
        yield (
            kind,
            label,
            scale * measured.step_s(*second) / measured.step_s(*first),
            scale * predicted(measured, *second) / predicted(measured, *first),
            scale * ceiling(measured, *second).time_s / ceiling(measured, *first).time_s,
        )


def tables(measured: Measured) -> str:
    """Tables of the calibration, all measurements with predictions, and all ratios; and a summary."""
    parts = (_calibration(measured), _speeds(measured), _relations(measured), _summary(measured))
    return "\n\n".join("\n".join(part) for part in parts)


def _calibration(measured: Measured) -> Iterator[str]:
    yield f"Bandwidth {measured.bandwidth / 1e9:.1f} GB/s, float32 products {measured.fp32 / 1e9:.0f} GFLOPS (the best that numpy reached)."
    yield ""
    yield "| precision | products with one row, GOPS | matrix products, GOPS |"
    yield "|---|--:|--:|"
    for precision in dict.fromkeys(precision for _, precision in measured.cases):
        row, matrix = rates(measured, precision)
        yield f"| {precision} | {row / 1e9:.0f} | {matrix / 1e9:.0f} |"


def _speeds(measured: Measured) -> Iterator[str]:
    yield "| model | GB | batch | measured tok/s | predicted | error | ceiling | share of it | disturbed |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for (case, batch), line in measured.rows.items():
        speed, guess = batch / measured.step_s(case, batch), batch / predicted(measured, case, batch)
        error = "calibration" if calibrates((case, batch)) else f"{guess / speed - 1:+.0%}"
        top, disturbed = ceiling(measured, case, batch).tokens_per_s, line["stolen"] + line["others"]
        yield (
            f"| {case[0]} {case[1]} | {weights_of(case).bytes / 1e9:.2f} | {batch} | {speed:.1f} | {guess:.1f} | {error} | {top:.1f} | "
            f"{speed / top:.0%} | {disturbed:.0%} |"
        )


def _relations(measured: Measured) -> Iterator[str]:
    yield "| speed of one over the other | measured | predicted | error | by the ceiling alone |"
    yield "|---|--:|--:|--:|--:|"
    for _, label, real, guess, top in ratios(measured):
        yield f"| {label} | {real:.2f} | {guess:.2f} | {guess / real - 1:+.0%} | {top:.2f} |"


def _summary(measured: Measured) -> Iterator[str]:
    found: dict[str, list[tuple[float, float]]] = {}
    for kind, _, real, guess, top in ratios(measured):
        found.setdefault(kind, []).append((abs(guess / real - 1), abs(top / real - 1)))
    for kind, errors in found.items():
        predictions, tops = zip(*errors, strict=True)
        inside, alone = (sum(error <= WITHIN for error in each) for each in (predictions, tops))
        middle = statistics.median(predictions)
        yield (
            f"- {kind}: {inside} of {len(errors)} within {WITHIN:.0%}; median error {middle:.0%}, largest {max(predictions):.0%}. "
            f"By the ceiling alone: {alone} of {len(errors)}, largest {max(tops):.0%}."
        )


_COLOURS = dict(zip(SHAPES, ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3"), strict=True))


def picture(measured: Measured) -> str:
    """SVG of predicted over measured tokens/s, both logarithmic. Dashed lines: errors of WITHIN."""
    points = [(case, batch / measured.step_s(case, batch), batch / predicted(measured, case, batch)) for case, batch in measured.rows]
    speeds = [speed for _, x, y in points for speed in (x, y)]
    low, high = math.log10(min(speeds) / 1.3), math.log10(max(speeds) * 1.3)

    def at(value: float) -> float:
        return 60 + 440 * (math.log10(value) - low) / (high - low)

    def line(factor: float, dash: int) -> str:
        ends = ((x, 560 - at(x * factor)) for x in (10**low * max(1, 1 / factor), 10**high / max(1, factor)))
        return '<polyline points="' + " ".join(f"{at(x):.1f},{y:.1f}" for x, y in ends) + f'" stroke="#999" stroke-dasharray="{dash}"/>'

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 560" font-family="sans-serif" font-size="13">',
        '<rect width="640" height="560" fill="white"/><rect x="60" y="60" width="440" height="440" fill="none" stroke="#999"/>',
        line(1, 0), line(1 + WITHIN, 4), line(1 / (1 + WITHIN), 4),
        '<text x="280" y="545" text-anchor="middle">measured tokens/s</text>',
        '<text x="20" y="280" text-anchor="middle" transform="rotate(-90 20 280)">predicted tokens/s</text>',
    ]  # fmt: skip
    for tick in (tick for tick in (1, 2, 5, 10, 20, 50, 100, 200) if low < math.log10(tick) < high):
        out.append(f'<text x="{at(tick):.1f}" y="518" text-anchor="middle">{tick}</text>')
        out.append(f'<text x="52" y="{564 - at(tick):.1f}" text-anchor="end">{tick}</text>')
    for (shape, _), x, y in points:
        out.append(f'<circle cx="{at(x):.1f}" cy="{560 - at(y):.1f}" r="4.5" fill="{_COLOURS[shape]}" fill-opacity="0.7"/>')
    for i, (shape, colour) in enumerate(_COLOURS.items()):
        out.append(f'<circle cx="515" cy="{75 + 22 * i}" r="4.5" fill="{colour}"/><text x="526" y="{79 + 22 * i}">{shape}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="measured.jsonl of ceiling.py")
    parser.add_argument("--write", type=Path, help="page to update between its markers; the plot is written next to it")
    given = parser.parse_args()
    measured = read(given.measured)
    if given.write is None:
        print(tables(measured))
        return
    page = given.write.read_text()
    head, rest = page.split(BEGIN, 1)
    first, tail = rest.split("\n", 1)[0], rest.split(END, 1)[1]
    given.write.write_text(f"{head}{BEGIN}{first}\n\n{tables(measured)}\n\n{END}{tail}")
    given.write.with_suffix(".svg").write_text(picture(measured))


if __name__ == "__main__":
    main()
