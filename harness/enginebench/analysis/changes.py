"""What is recorded differently around two runs: the machine, the versions, images and settings of each engine.

Only what was recorded is compared; what nobody wrote down may have changed as well. Judges no figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis, Row
from enginebench.domain import JSON, plain, plain_object

NOT_TOLD = "not told"
_MOMENTARY = ("load_average", "clock_step_ns", "clock_resolution_ns", "memory_bandwidth")
"""What is measured of the machine: never the same twice."""
_SAME_MACHINE = ("architecture", "cpu", "logical_cores", "usable_cores", "cpu_quota", "memory_limit_bytes")
_LAUNCH = ("variant", "version", "packages", "container", "resolved", "inherited")
"""What of a server start describes the engine; addresses, times and folders are new at every start."""


@dataclass(frozen=True)
class Changed:
    """One fact that is not the same. of: 'machine', 'run', or the deployment's name. what: the fact's key, dotted."""

    of: str
    what: str
    base: str
    candidate: str


def changes(base: Analysis, candidate: Analysis, pairs: Iterable[tuple[Row, Row]]) -> tuple[Changed, ...]:
    """Everything that differs, each once: the machine first, then the runs, then deployment by deployment."""
    machines = (_machine(base), _machine(candidate))
    found = [*_differing("machine", *machines), *_differing("run", _of_run(base), _of_run(candidate))]
    for one, other in pairs:
        found += _differing(one.name, _deployed(one, base), _deployed(other, candidate))
    return tuple(dict.fromkeys(found))


def moved(base: Analysis, candidate: Analysis) -> bool:
    """Whether the runs were made on machines that are not alike: other processors, other limits, other accelerators."""
    return _hardware(base) != _hardware(candidate)


def _hardware(analysis: Analysis) -> JSON:
    machine = analysis.run.machine
    gpus = machine.get("gpus")
    names = [gpu.get("name") if isinstance(gpu, dict) else gpu for gpu in gpus] if isinstance(gpus, list) else None
    return [names, *(machine.get(key) for key in _SAME_MACHINE)]


def _machine(analysis: Analysis) -> dict[str, str]:
    return _flat({key: value for key, value in analysis.run.machine.items() if key not in _MOMENTARY})


def _of_run(analysis: Analysis) -> dict[str, str]:
    return {"scenario": analysis.run.name, "slo": analysis.slo.text if analysis.slo else "none"}


def _deployed(row: Row, analysis: Analysis) -> dict[str, str]:
    """The deployment as it was asked for, and what its starts say; where they differ among themselves, each answer."""
    launches = [analysis.launches[key] for key in dict.fromkeys(c.record.launch_id for c in row.cells) if key in analysis.launches]
    told: dict[str, dict[str, None]] = {}
    for launch in launches:
        known = {key: value for key, value in plain_object(launch).items() if key in _LAUNCH}
        if isinstance(resolved := known.get("resolved"), dict):
            known["resolved"] = {
                key: value for key, value in resolved.items() if key != "raw"
            }  # ports and folders, under the engine's names
        for key, text in _flat(known).items():
            told.setdefault(key, {})[text] = None
    return _flat({"asked": plain(row.deployment)}) | {key: " / ".join(texts) for key, texts in told.items()}


def _flat(data: Mapping[str, JSON], prefix: str = "") -> dict[str, str]:
    """Nested data as dotted key -> text; a list of plain values is one text."""
    out: dict[str, str] = {}
    for key, value in data.items():
        listed = isinstance(value, list) and any(isinstance(item, dict) for item in value)
        inner = {str(i): item for i, item in enumerate(value)} if isinstance(value, list) and listed else value
        if isinstance(inner, dict):
            out |= _flat(inner, f"{prefix}{key}.")
        elif value not in (None, "", []):
            out[f"{prefix}{key}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return out


def _differing(of: str, base: Mapping[str, str], candidate: Mapping[str, str]) -> Iterator[Changed]:
    for what in dict.fromkeys([*base, *candidate]):
        one, other = base.get(what, NOT_TOLD), candidate.get(what, NOT_TOLD)
        if one != other:
            yield Changed(of, what, one, other)
