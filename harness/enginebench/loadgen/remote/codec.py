"""A load and its samples as JSON with bytes behind them, without loss. Does not know: how they travel.

Bodies of requests, and times and counts of events, are bytes; everything else is JSON. Both ends have the same version and byte order.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import accumulate
from typing import Any, Final

from enginebench.dialects import Dialect
from enginebench.domain import Sample
from enginebench.errors import UserError
from enginebench.loadgen.health import Vitals
from enginebench.loadgen.request import Body, LoadSpec, Progress, Target, WireRequest, WorkerResult

_EVENTS: Final[Mapping[str, str]] = {"event_ns": "q", "event_tokens": "i", "event_chars": "i"}
_SAMPLE: Final = tuple(each.name for each in fields(Sample) if each.name not in _EVENTS)
_REQUEST: Final = tuple(each.name for each in fields(WireRequest) if each.name != "body")
_SPEC: Final = tuple(each.name for each in fields(LoadSpec) if each.name not in ("target", "requests", "dialect"))


# -- loads ---------------------------------------------------------------------------------------------------------------


def pack_spec(spec: LoadSpec) -> tuple[dict[str, Any], bytes]:
    """Fields for a message, and the bodies."""
    pieces = [request.body if isinstance(request.body, tuple) else (request.body,) for request in spec.requests]
    return {
        "spec": {name: getattr(spec, name) for name in _SPEC},
        "target": asdict(spec.target),
        "dialect": _name(type(spec.dialect)),
        "requests": [[getattr(request, name) for name in _REQUEST] for request in spec.requests],
        "pieces": [[len(piece) if isinstance(piece, bytes) else -1 - piece for piece in each] for each in pieces],
    }, b"".join(piece for each in pieces for piece in each if isinstance(piece, bytes))  # fmt: skip


def unpack_spec(data: Mapping[str, Any], blob: bytes) -> LoadSpec:
    """UserError for a dialect that is not known here."""
    spec: dict[str, Any] = dict(data["spec"])
    spec["end_marks"] = frozenset(spec["end_marks"])
    return LoadSpec(target=Target(**data["target"]), requests=list(_requests(data, blob)), dialect=_dialect(data["dialect"]), **spec)


def _requests(data: Mapping[str, Any], blob: bytes) -> Iterator[WireRequest]:
    start = 0
    for row, sizes in zip(data["requests"], data["pieces"], strict=True):
        pieces: list[bytes | int] = []
        for size in sizes:
            pieces.append(blob[start : start + size] if size >= 0 else -1 - size)
            start += max(0, size)
        body: Body = pieces[0] if len(pieces) == 1 and isinstance(pieces[0], bytes) else tuple(pieces)
        values = dict(zip(_REQUEST, row, strict=True))
        yield WireRequest(body=body, **values | {"after": tuple(values["after"])})
    if start != len(blob):
        raise ValueError(f"{len(blob)} bytes of bodies where {start} were stated")


def _name(kind: type[Dialect]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _dialect(name: str) -> Dialect:
    """One of the dialects that were imported here: no module is imported because another host names it."""
    found = next((kind for kind in _kinds(Dialect) if _name(kind) == name), None)  # type: ignore[type-abstract]
    if found is None:
        raise UserError(f"the dialect {name} is not known on this host", advice="start it with the adapter: bench client --adapter FILE")
    return found()


def _kinds(kind: type[Dialect]) -> Iterator[type[Dialect]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)


# -- results -------------------------------------------------------------------------------------------------------------


def pack_result(result: WorkerResult) -> tuple[dict[str, Any], bytes]:
    """Fields for a message, and times and counts of the events."""
    samples = result.samples
    columns = [b"".join(getattr(sample, name).tobytes() for sample in samples) for name in _EVENTS]
    return {
        "samples": [[getattr(sample, name) for name in _SAMPLE] for sample in samples],
        "events": [[len(getattr(sample, name)) for sample in samples] for name in _EVENTS],
        "vitals": asdict(result.vitals),
        "stopped": result.stopped,
    }, b"".join(columns)  # fmt: skip


def unpack_result(data: Mapping[str, Any], blob: bytes) -> WorkerResult:
    vitals: dict[str, Any] = dict(data["vitals"])
    vitals["lag_ms"] = tuple(vitals["lag_ms"])
    samples = [_sample(row) for row in data["samples"]]
    start = 0
    for (name, code), counts in zip(_EVENTS.items(), data["events"], strict=True):
        start = _spread(samples, name, code, counts, blob, start)
    if start != len(blob):
        raise ValueError(f"{len(blob)} bytes of events where {start} were stated")
    return WorkerResult(samples, Vitals(**vitals), data["stopped"], saturated=False)


def _sample(row: Sequence[Any]) -> Sample:
    values = dict(zip(_SAMPLE, row, strict=True))
    return Sample(**values | {"end_marks": frozenset(values["end_marks"])})


def _spread(samples: Sequence[Sample], name: str, code: str, counts: Sequence[int], blob: bytes, start: int) -> int:
    """Give each sample its part of a column. Returns where the next column begins."""
    width = array(code).itemsize
    ends = [start + width * end for end in accumulate(counts)]
    for sample, count, end in zip(samples, counts, ends, strict=True):
        setattr(sample, name, array(code, blob[end - width * count : end]))
    return ends[-1] if ends else start


def unpack_progress(data: Mapping[str, Any]) -> Progress:
    pace_s: Any = data["pace_s"]
    return Progress(**{**data, "pace_s": tuple(pace_s) if pace_s else None})
