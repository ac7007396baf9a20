"""How a deployment looks in every figure: one hue per engine, one dash and marker per variant, and the rules of style for them.

Colour means engine and nothing else. An engine without a hue of its own takes one that no engine of the run uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from enginebench.machine.folders import resource_dir

HUES: Mapping[str, tuple[str, str]] = {
    "vllm": ("#1f5db8", "#7fb2ff"), "sglang": ("#b04a06", "#ff9d5c"), "trtllm": ("#3c7410", "#97cf5f"),
    "llamacpp": ("#ad2b76", "#f58cc4"), "exllamav3": ("#7340b5", "#c09bf5"), "transformers": ("#7b6200", "#d9bd4e"),
    "ollama": ("#5c6672", "#aeb8c4"), "mlx": ("#04757b", "#4fcbd0"),
}  # fmt: skip
"""Engine -> its hue on a light and on a dark page; each has a contrast of at least 5 with the page."""
DASHES = ("solid", "dash", "dot", "longdash", "dashdot")
DASH_ARRAYS: Mapping[str, str] = {"dash": "7 4", "dot": "2 3", "longdash": "12 4", "dashdot": "8 3 2 3"}
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "star", "hexagon")


@dataclass(frozen=True)
class Style:
    """slot: position of the deployment in the run; -1 for what belongs to no deployment."""

    slot: int
    hue: tuple[str, str] = ("#5b6068", "#a6abb3")
    dash: str = DASHES[0]
    symbol: str = SYMBOLS[0]


NEUTRAL = Style(-1)


def styles(deployments: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """Name -> style. deployments: (name, engine) in the order of the run; a variant is what a name has besides its engine."""
    each = dict(deployments)
    hues = _hues(dict.fromkeys(each.values()))
    variants = list(dict.fromkeys(name.removeprefix(engine).strip() for name, engine in each.items()))
    variants.sort(key=bool)  # an engine by its bare name is solid, with circles
    out: dict[str, Style] = {}
    for slot, (name, engine) in enumerate(each.items()):
        variant = variants.index(name.removeprefix(engine).strip())
        out[name] = Style(slot, hues[engine], DASHES[variant % len(DASHES)], SYMBOLS[variant % len(SYMBOLS)])
    return out


def _hues(engines: Iterable[str]) -> dict[str, tuple[str, str]]:
    known = {engine: HUES.get(engine) for engine in engines}
    free = [hue for hue in HUES.values() if hue not in known.values()] or list(HUES.values())
    unknown = [engine for engine, hue in known.items() if hue is None]
    return {engine: hue or free[unknown.index(engine) % len(free)] for engine, hue in known.items()}


def hues(slots: Mapping[str, Style]) -> str:
    """The rules for the colour of each deployment, in light and dark, and for the dash of its lines."""
    light, dark = ("".join(f".s{its.slot}{{--c:{its.hue[i]}}}" for its in slots.values()) for i in (0, 1))
    dashes = "".join(
        f".s{its.slot} .l,.l.s{its.slot}{{stroke-dasharray:{DASH_ARRAYS[its.dash]}}}" for its in slots.values() if its.dash in DASH_ARRAYS
    )
    return f"{light}{dashes}@media screen and (prefers-color-scheme:dark){{{dark}}}\n"


def read_template(name: str) -> str:
    """A style or a script of reports/templates without indentation, comments, and the spaces of a style that mean nothing."""
    text = re.sub(r"\n\s+", "\n", (resource_dir("reports/templates") / name).read_text(encoding="utf-8"))
    if name.endswith(".css"):
        text = re.sub(r"/\*.*?\*/\n?", "", text)
        return re.sub(r' +(?=[{}])|(?<=[;{},]) +(?!")|(?<=[\w-]:) +(?!")', "", text)
    return re.sub(r"(?m)(?:^| +)// .*$", "", text)
