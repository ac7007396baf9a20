"""The scenario that follows from a tuning: each deployment as it was and with the options that were found, all else as it was.

A tuning measures no quality, and its page has a row for every trial. Run as a scenario, the default and the tuned servers stand side by
side under all loads, with their quality.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from enginebench.analysis.labels import deployment_titles
from enginebench.analysis.tuning import Tuned
from enginebench.domain import JSON, Deployment
from enginebench.domain.formatting import relative_change
from enginebench.domain.ids import text_of
from enginebench.domain.tuning import DEGREES

WORTH = ("better", "not told apart")
"""Verdicts with which a tuned server is worth measuring again."""
_SINGLE = ("engine", "model", "precision", "runtime", "max_context", "max_concurrency")
_LONGEST = 60


def tuned_scenario(text: str, name: str, found: Sequence[Tuned]) -> str:
    """As YAML. text: the scenario that was tuned for. name: of the tuning."""
    data: dict[str, Any] = yaml.safe_load(text)
    titles = deployment_titles([its.base for its in found])
    head = [f"Written by `bench tune`, {name}: the default and the tuned server of each deployment, to be measured side by side."]
    deployments: list[Any] = []
    left = list(found)
    for entry in data["deployments"]:
        ours = [its for its in left if _made(entry, its.base)]
        left = [its for its in left if its not in ours]
        for its in ours:
            title = titles[text_of(its.base)]
            kept = its.verdict in WORTH and bool(its.settings)
            deployments += _rows(entry, its, title, kept=kept)
            head.append(f"{title}: {its.verdict}{_gain(its) if kept else ''}")
        deployments += [] if ours else [entry]
    data |= {"name": f"{data['name']}-tuned"[:100], "deployments": deployments}
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True)


def _rows(entry: Mapping[str, Any], its: Tuned, title: str, *, kept: bool) -> list[dict[str, Any]]:
    """The entries of one deployment. kept: whether its tuned server is worth measuring."""
    default = _default(entry, its.base)
    first = {"label": its.base.label or _label(title, " default"), **default}
    return [first, {"label": _label(its.base.label or title, " tuned"), **_tuned(default, its.settings)}] if kept else [first]


def _gain(its: Tuned) -> str:
    """' (+21 %, p = 0.029)'."""
    if its.gain is None or its.gain.relative is None:
        return ""
    p = f", p = {its.gain.p:.2g}" if its.gain.p is not None else ""
    return f" ({relative_change(its.gain.relative, its.gain.low, its.gain.high)}{p})"


def _default(written: Mapping[str, Any], base: Deployment) -> dict[str, Any]:
    """The entry that this deployment came from, with its values in the place of lists, and without a label."""
    entry = {name: copy.deepcopy(value) for name, value in written.items() if name != "label"}
    degrees = {name: getattr(base.parallelism, name) for name in DEGREES if name in entry}
    single = {name: getattr(base, name) for name in _SINGLE if isinstance(entry.get(name), list)}
    return {**entry, **single, **degrees, **({"options": dict(base.options)} if base.options else {})}


def _made(entry: Mapping[str, Any], base: Deployment) -> bool:
    """Whether the entry's combinations have this deployment."""
    values = {name: getattr(base, name) for name in _SINGLE} | {name: getattr(base.parallelism, name) for name in DEGREES}
    options = entry.get("options") or {}
    return (
        all(value in _values(entry[name]) for name, value in values.items() if name in entry)
        and all(base.options.get(name) == its or base.options.get(name) in _values(its) for name, its in options.items())
        and entry.get("label") == base.label
    )


def _values(written: Any) -> list[Any]:
    return written if isinstance(written, list) else [written]


def _tuned(entry: Mapping[str, Any], settings: Mapping[str, JSON]) -> dict[str, Any]:
    options = {name: value for name, value in settings.items() if name not in DEGREES}
    return {
        **entry,
        **{name: value for name, value in settings.items() if name in DEGREES},
        "options": {**entry.get("options", {}), **options},
    }


def _label(title: str, what: str) -> str:
    return title[: _LONGEST - len(what)] + what
