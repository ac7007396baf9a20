"""How hardware is written: '4xh100', '2xrtx4090+256gb', 'm3-ultra-96gb', 'cpu', or 'name=box,memory=96gb,bandwidth=1800gb/s'.

Reads text only. It does not know which devices there are (see `catalogue`).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from enginebench.errors import UserError, did_you_mean
from enginebench.physics.machine import GB, GIB, Device, Link

_HOST = re.compile(r"\s*\+\s*(?P<size>\d+(?:\.\d+)?)\s*gb(?:\s*ram)?\s*$", re.IGNORECASE)
_COUNT = re.compile(r"\s*(?P<count>\d+)\s*x\s*(?=\S)", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_SIZE = re.compile(r"-(\d+)gb$")
_VALUE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-z%/]*)")
_BYTES = {"mb": 1e6, "gb": GB, "tb": 1e12, "mib": 2.0**20, "gib": GIB, "tib": 2.0**40}
_RATES = {**{f"{unit}/s": size for unit, size in _BYTES.items()}, "mbit/s": 1e6 / 8, "gbit/s": 1e9 / 8, "tbit/s": 1e12 / 8}
_FLOPS = {"gflops": 1e9, "tflops": 1e12, "pflops": 1e15, "gops": 1e9, "tops": 1e12, "pops": 1e15}
_UNITS: Mapping[str, tuple[Mapping[str, float], str]] = {
    "memory": (_BYTES, "96gb"), "bandwidth": (_RATES, "1800gb/s"), "host": (_BYTES, "256gb"), "host-bandwidth": (_RATES, "80gb/s"),
    **dict.fromkeys(("fp32", "bf16", "fp8", "int8", "fp4"), (_FLOPS, "200tflops")),
    "link": (_RATES, "450gb/s"), "pcie": (_RATES, "64gb/s"), "network": (_RATES, "50gb/s"),
    "usable": ({"%": 0.01, "": 1.0}, "75%"), "power": ({"w": 1.0, "kw": 1e3}, "700w"),
    "count": ({"": 1.0}, "2"), "node": ({"": 1.0}, "8"),
}  # fmt: skip
"""Key of hardware that is written by its figures -> its units, and an example."""
_WHOLE = ("count", "node")
UNNAMED = "device"
EXAMPLE = "name=box,memory=96gb,bandwidth=1800gb/s"


@dataclass(frozen=True)
class Written:
    """Hardware as it was written, with the count and host memory taken off."""

    name: str
    """Of a device; lower case, with '-' for spaces and '_'."""
    count: int = 1
    host: float | None = None
    """Bytes of host memory; None: not stated."""
    figures: Mapping[str, float] | None = None
    """In bytes, bytes/s, operations/s, watts; None for a device that is only named."""

    @property
    def device(self) -> Device:
        """The device that the figures describe. What they leave out is no limit. UserError without memory or bandwidth."""
        given = self.figures or {}
        for key in ("memory", "bandwidth"):
            if key not in given:
                raise _wrong(f"'{self.name}' has no {key}", f"add {key}=, for example {EXAMPLE}")
        return Device(
            name=self.name, memory=given["memory"], bandwidth=given["bandwidth"], usable_share=given.get("usable", 1.0),
            flops={kind: given[kind] for kind in ("fp32", "bf16", "fp8", "int8", "fp4") if kind in given} or {"bf16": math.inf},
            link=Link("stated", given["link"]) if "link" in given else None, pcie=given.get("pcie"), network=given.get("network"),
            node=int(given.get("node", 8)), tdp_w=given.get("power"),
        )  # fmt: skip


def read_written(text: str, known: Mapping[str, object] | frozenset[str] = frozenset()) -> Written:
    """Parse hardware. known: the names of devices, which come before a count: '7900xtx' is one device. UserError for another form."""
    if "=" in text:
        return _by_figures(text)
    host = _HOST.search(text)
    rest = text[: host.start()] if host else text
    count, name = 1, normalized(rest)
    if name not in known and (found := _COUNT.match(rest)) is not None:
        count, name = int(found["count"]), normalized(rest[found.end() :])
    if count < 1 or not _NAME.fullmatch(name):
        raise _wrong(f"invalid hardware '{text}'", f"write for example 4xh100 or 1xrtx4090+128gb, or its figures: {EXAMPLE}")
    return Written(name, count, float(host["size"]) * GB if host else None)


def normalized(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.strip().lower())


def is_name(name: str) -> bool:
    """Whether a catalogue may call a device so."""
    return _NAME.fullmatch(name) is not None


def recounted(text: str, count: int, known: Mapping[str, object] | frozenset[str] = frozenset()) -> str:
    """The same hardware with another number of devices."""
    if "=" in text:
        kept = [part for part in _COUNT.sub("", text, count=1).split(",") if normalized(part.partition("=")[0]) != "count"]
        return f"{count}x{','.join(kept)}"
    written = read_written(text, known)
    return f"{count}x{written.name}{f'+{written.host / GB:g}gb' if written.host else ''}"


def by_figures(device: Device) -> str:
    """The notation of a device by its figures, from which `read_written` makes the same one (but for what links join)."""
    link = device.link.bandwidth * (device.node - 1 if device.link.per_peer else 1) if device.link else None
    values = {
        "memory": (device.memory / GIB, "gib"), "bandwidth": (device.bandwidth / GB, "gb/s"),
        **{kind: (rate / 1e12, "tflops") for kind, rate in device.flops.items() if math.isfinite(rate)},
        "link": (link / GB if link else None, "gb/s"), "pcie": (device.pcie / GB if device.pcie else None, "gb/s"),
        "network": (device.network / GB if device.network else None, "gb/s"), "node": (device.node, ""),
        "usable": (device.usable_share, ""), "power": (device.tdp_w, "w"),
    }  # fmt: skip
    return ",".join([f"name={device.name}", *(f"{key}={value:.12g}{unit}" for key, (value, unit) in values.items() if value is not None)])


def size_of(name: str) -> tuple[str, int] | None:
    """'m3-ultra-256gb' as ('m3-ultra', 256); None for a name that ends in no size."""
    found = _SIZE.search(name)
    return (name[: found.start()], int(found[1])) if found else None


def _by_figures(text: str) -> Written:
    found, host = _COUNT.match(text), _HOST.search(text)
    prefix = int(found["count"]) if found and "=" not in found[0] else None
    body = text[found.end() if found else 0 : host.start() if host else len(text)]
    name, figures = UNNAMED, {}
    for part in body.split(","):
        key, equals, value = part.partition("=")
        key = normalized(key)
        if not equals or (key != "name" and key not in _UNITS):
            raise _wrong(f"'{part.strip()}' is no figure of hardware", _spelling(key))
        if key in figures or (key == "name" and name != UNNAMED):
            raise _wrong(f"{key} is written twice", f"write it once: {EXAMPLE}")
        if key == "name":
            name = _checked_name(value)
        else:
            figures[key] = _number(key, value)
    if (prefix is not None and "count" in figures) or (host and "host" in figures):
        raise _wrong("the number of devices or the host's memory is written twice", f"write for example 2x{EXAMPLE}+128gb")
    count = int(figures.pop("count", prefix if prefix is not None else 1))
    memory = float(host["size"]) * GB if host else figures.pop("host", None)
    if count < 1:
        raise _wrong(f"'{name}' has a count of 0", f"write for example 2x{EXAMPLE}")
    return Written(name, count, memory, figures)


def _checked_name(value: str) -> str:
    name = normalized(value)
    if not is_name(name) or name in ("cpu", "any"):
        raise _wrong(f"a device cannot be called '{value.strip()}'", "write name= with letters, digits, '-' and '.'")
    return name


def _number(key: str, value: str) -> float:
    units, example = _UNITS[key]
    found = _VALUE.fullmatch(value.strip().lower())
    if found is None or found["unit"] not in units:
        raise _wrong(f"{key}={value.strip()} is no {'number' if '' in units else f'number of {next(iter(units))} or the like'}",
                     f"write for example {key}={example}; units: {', '.join(unit or 'none' for unit in units)}")  # fmt: skip
    number = float(found["number"]) * units[found["unit"]]
    if key in _WHOLE and not number.is_integer():
        raise _wrong(f"{key}={value.strip()} is not a whole number", f"write for example {key}={example}")
    if number <= 0 or (key == "usable" and number > 1):
        raise _wrong(f"{key}={value.strip()} is not possible", f"write for example {key}={example}")
    return number


def _spelling(key: str) -> str:
    if not key or not difflib.get_close_matches(key, _UNITS):
        return f"write for example {EXAMPLE}; keys: name, {', '.join(_UNITS)}"
    return did_you_mean(key, ["name", *_UNITS])


def _wrong(message: str, advice: str) -> UserError:
    return UserError(message, key="hardware", advice=advice)
