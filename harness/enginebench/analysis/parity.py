"""Parity: how far deployments of the same model agree on the greedy output of the same prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from enginebench.analysis.rows import Row
from enginebench.domain import JSON, canonical, fingerprint
from enginebench.domain.formatting import counted
from enginebench.records.launch import LaunchRecord


@dataclass(frozen=True)
class Parity:
    a: str
    b: str
    model: str
    agreed: tuple[int, ...]
    """For each compared prompt, the number of leading characters that are the same in both outputs."""
    length: tuple[int, ...]
    """For each compared prompt, the length of the longer output."""
    prompts: int
    """Number of prompts, compared or not."""
    incomparable: tuple[str, ...] = ()

    @property
    def identical(self) -> int:
        """Number of compared prompts with the same output, leading spaces aside."""
        return sum(x == y for x, y in zip(self.agreed, self.length, strict=True))

    @property
    def summary(self) -> str:
        """'2 of 3 prompts; 1 not comparable: the prompts differ'."""
        compared, left = len(self.agreed), self.prompts - len(self.agreed)
        same = [f"{self.identical} of {counted(compared, 'prompt')}"] if compared else []
        return "; ".join([*same, *([f"{left} not comparable: {', '.join(self.incomparable)}"] if left else [])])


def parities(rows: Sequence[Row], launches: Mapping[str, LaunchRecord]) -> Iterator[Parity]:
    """Every pair of deployments of the same model with stored outputs; of several starts of a deployment the first one counts."""
    names = {fingerprint(canonical(row.deployment)): row.name for row in rows}
    last_first = sorted(launches.values(), key=lambda launch: -launch.repeat)
    with_output = {fingerprint(canonical(launch.deployment)): launch for launch in last_first if launch.parity}
    entries = [(key, with_output[key]) for key in names if key in with_output]
    for i, (key_a, a) in enumerate(entries):
        for key_b, b in entries[i + 1 :]:
            if a.deployment.model == b.deployment.model:
                yield _parity(names[key_a], names[key_b], a, b)


def _parity(name_a: str, name_b: str, a: LaunchRecord, b: LaunchRecord) -> Parity:
    agreed: list[int] = []
    length: list[int] = []
    reasons: dict[str, None] = {}
    nothing: Mapping[str, JSON] = {}
    for x, y in zip_longest(a.parity, b.parity, fillvalue=nothing):
        if why := _incomparable(x, y):
            reasons[why] = None
            continue
        p, q = (str(each["output"]).lstrip(" ") for each in (x, y))  # some engines' detokenizers drop the first space of a reply
        agreed.append(next((i for i, (c, d) in enumerate(zip(p, q, strict=False)) if c != d), min(len(p), len(q))))
        length.append(max(len(p), len(q)))
    prompts = max(len(a.parity), len(b.parity))
    return Parity(name_a, name_b, a.deployment.model, tuple(agreed), tuple(length), prompts, tuple(reasons))


def _incomparable(x: Mapping[str, JSON], y: Mapping[str, JSON]) -> str | None:
    if not x or not y:
        return "only one deployment was asked"
    if x.get("prompt") != y.get("prompt"):
        one_is_ids = isinstance(x.get("prompt"), str) != isinstance(y.get("prompt"), str)
        return "one prompt is known as text, the other as token ids" if one_is_ids else "the prompts differ"
    if bad := sorted({str(each.get("outcome")) for each in (x, y)} - {"ok"}):
        return f"a request ended as {' and '.join(bad)}"
    return None if x.get("output") or y.get("output") else "both outputs are empty"
