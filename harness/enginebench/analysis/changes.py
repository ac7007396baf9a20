"""Differences between the recorded facts of two runs: the machine, and the versions, images and settings of each engine.

Facts that were not recorded may differ as well. It judges no figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from enginebench.analysis.analysis import Analysis, Row
from enginebench.domain import JSON, plain
from enginebench.domain.formatting import flat
from enginebench.records.launch import LaunchRecord

NOT_RECORDED = "not recorded"
_MOMENTARY = ("load_average", "clock_step_ns", "clock_resolution_ns", "memory_bandwidth")
"""Facts that are measured, and never the same twice."""
_SAME_MACHINE = ("architecture", "cpu", "logical_cores", "usable_cores", "cpu_quota", "memory_limit_bytes")


@dataclass(frozen=True)
class Changed:
    of: str
    """'machine', 'run', or the deployment's name."""
    what: str
    """The dotted key of the fact."""
    base: str
    candidate: str


def changes(base: Analysis, candidate: Analysis, pairs: Iterable[tuple[Row, Row]]) -> tuple[Changed, ...]:
    """Every difference once: of the machine, of the runs, then of each deployment."""
    machines = (_machine(base), _machine(candidate))
    found = [*_differing("machine", *machines), *_differing("run", _of_run(base), _of_run(candidate))]
    for one, other in pairs:
        found += _differing(one.name, _deployed(one, base), _deployed(other, candidate))
    return tuple(dict.fromkeys(found))


def moved(base: Analysis, candidate: Analysis) -> bool:
    """Whether the runs were made on machines with different processors, limits or accelerators."""
    return _hardware(base) != _hardware(candidate)


def _hardware(analysis: Analysis) -> JSON:
    machine = analysis.run.machine
    gpus = machine.get("gpus")
    names = [gpu.get("name") if isinstance(gpu, dict) else gpu for gpu in gpus] if isinstance(gpus, list) else None
    return [names, *(machine.get(key) for key in _SAME_MACHINE)]


def _machine(analysis: Analysis) -> dict[str, str]:
    return flat({key: value for key, value in analysis.run.machine.items() if key not in _MOMENTARY})


def _of_run(analysis: Analysis) -> dict[str, str]:
    return {"scenario": analysis.run.name, "slo": analysis.slo.text if analysis.slo else "none"}


def _deployed(row: Row, analysis: Analysis) -> dict[str, str]:
    """The requested deployment, and the facts of its launches; where those differ from each other, all of them."""
    launches = [analysis.launches[key] for key in dict.fromkeys(c.record.launch_id for c in row.cells) if key in analysis.launches]
    found: dict[str, dict[str, None]] = {}
    for launch in launches:
        for key, text in flat(_launched(launch)).items():
            found.setdefault(key, {})[text] = None
    return flat({"asked": plain(row.deployment)}) | {key: " / ".join(texts) for key, texts in found.items()}


def _launched(launch: LaunchRecord) -> dict[str, JSON]:
    """The facts of a launch that describe the engine; addresses, times and folders differ at every start."""
    startup, resolved = launch.startup, launch.configuration.resolved
    return {
        "variant": launch.variant,
        "version": launch.version,
        "packages": dict(startup.packages),
        "inherited": list(startup.inherited),
        "container": dict(startup.container),
        "resolved": {key: value for key, value in resolved.items() if key != "raw"},  # `raw` holds ports and folders
    }


def _differing(of: str, base: Mapping[str, str], candidate: Mapping[str, str]) -> Iterator[Changed]:
    for what in dict.fromkeys([*base, *candidate]):
        one, other = base.get(what, NOT_RECORDED), candidate.get(what, NOT_RECORDED)
        if one != other:
            yield Changed(of, what, one, other)
