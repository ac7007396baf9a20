"""The catalogues of models and devices, from the YAML files in data/.

Dimensions are those of the models' config.json; a test compares the figures computed from them with the published ones. Reads no
checkpoints. Measures nothing, except for the device 'cpu'.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from enginebench.errors import UserError, did_you_mean
from enginebench.physics.config import from_config
from enginebench.physics.geometry import Model, Tables
from enginebench.physics.machine import GB, GIB, Device, Host, Link, Machine, sized, split_machine

_DATA = Path(__file__).with_name("data")
_LAYOUT = 1
THIS_CPU = "cpu"
"""The CPU of this machine; its limits are measured."""


@dataclass(frozen=True)
class Published:
    """The vendor's figures, in billions of weights."""

    total: float
    active: float
    tables: Tables
    """The vocabulary tables that the active figure includes."""


@dataclass(frozen=True)
class Entry:
    name: str
    hub: str
    model: Model
    native: str
    """The precision of the published checkpoint."""
    published: Published
    source: str
    note: str = ""
    """If sources differ: which one is right, and why."""
    aliases: tuple[str, ...] = field(default=())


@cache
def models() -> Mapping[str, Entry]:
    data = _read("models.yaml", "models")
    return {name: _entry(name, each) for name, each in data.items()}


@cache
def devices() -> Mapping[str, Device]:
    """Every device by name, without this machine's CPU."""
    return {name: _device(name, each) for name, each in _read("hardware.yaml", "devices").items()}


def find_model(name: str) -> Entry | None:
    """The model with this name, alias or hub id; case-insensitive."""
    word = name.lower()
    named = (each for each in models().values() if word in (each.name, each.hub.lower(), each.hub.lower().partition("/")[2], *each.aliases))
    return next(named, None)


def need_model(name: str) -> Entry:
    entry = find_model(name)
    if entry is None:
        raise UserError(f"no model '{name}' in the catalogue", key="model", advice=did_you_mean(name.lower(), models()))
    return entry


def need_device(name: str) -> Device:
    """The device with this name or alias, including sizes ('m3-ultra-256gb'). 'cpu' is measured, which takes seconds. UserError if none."""
    word = name.lower()
    if word == THIS_CPU:
        from enginebench.physics.this_cpu import this_cpu

        return this_cpu()
    known = _device_names()
    if word in known:
        return devices()[known[word]]
    variant = sized(devices()[family], word) if (family := known.get(word.rpartition("-")[0])) else None
    if variant is None:
        near = difflib.get_close_matches(word, known, n=1)  # suggest a similar alias, too
        raise UserError(f"no device '{name}' in the catalogue", key="hardware", advice=did_you_mean(word, [*devices(), THIS_CPU, *near]))
    return variant


def read_machine(text: str, *, host_bandwidth: float | None = None) -> Machine:
    """Parse '4xh100', '2xrtx4090+256gb' or 'cpu'. host_bandwidth: bytes/s of host memory; None: that of two DDR5 channels."""
    found = split_machine(text)
    whole = re.sub(r"[ _]", "-", text.partition("+")[0].strip().lower())
    if found is not None and whole in _device_names():  # '7900xtx' is no count of 'tx'
        found = (1, whole, found[2])
    if found is None:
        raise UserError(f"invalid hardware '{text}'", key="hardware", advice="write for example 4xh100 or 1xrtx4090+128gb")
    count, name, memory = found
    host = Host(memory) if memory is not None else None
    if host and host_bandwidth is not None:
        host = replace(host, bandwidth=host_bandwidth)
    return Machine(need_device(name), count, host)


@cache
def driver_names() -> Mapping[str, str]:
    """Every name that a driver reports, in lower case -> the device."""
    return {said.lower(): name for name, each in _read("hardware.yaml", "devices").items() for said in each.get("drivers", ())}


@cache
def _device_names() -> Mapping[str, str]:
    listed = _read("hardware.yaml", "devices")
    return {alias: name for name, each in listed.items() for alias in (name, *each.get("aliases", ()))}


@cache
def _read(file: str, key: str) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where there is one
    data = yaml.load((_DATA / file).read_text(encoding="utf-8"), loader)  # noqa: S506  # a safe one
    if data["schema_version"] != _LAYOUT:
        raise ValueError(f"{file} has schema version {data['schema_version']}, expected {_LAYOUT}")
    found: dict[str, Any] = data[key]
    return found


def _entry(name: str, data: Mapping[str, Any]) -> Entry:
    plain = {key: value for key, value in data.items() if key in ("hub", "native", "source", "note")}
    aliases = tuple(data.get("aliases", ()))
    return Entry(name, model=from_config(name, data["config"]), published=Published(**data["published"]), aliases=aliases, **plain)


def _device(name: str, data: Mapping[str, Any]) -> Device:
    link = data.get("link")
    measured = data.get("measured", {}).get("copy_gbs")
    return Device(
        name=name, memory=data["memory_gib"] * GIB, bandwidth=data["bandwidth_gbs"] * GB,
        flops={kind: rate * 1e12 for kind, rate in data["tflops"].items()}, usable_share=data.get("usable_share", 1.0),
        link=Link(link["kind"], link["gbs"] * GB, link.get("per_peer", False), link.get("most")) if link else None,
        pcie=data["pcie_gbs"] * GB if "pcie_gbs" in data else None, network=data["network_gbs"] * GB if "network_gbs" in data else None,
        node=data.get("node", 8), tdp_w=data.get("tdp_w"), measured_bandwidth=measured * GB if measured else None,
        note=data.get("note", ""),
    )  # fmt: skip
