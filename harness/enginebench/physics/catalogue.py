"""The catalogues: models and devices that have names, from the YAML files beside this one.

Dimensions are those of the models' own config.json; every published figure stands beside what the dimensions give, and a test
compares them. It reads no checkpoint and measures nothing, except where the device asked for is this machine's own processor.
"""

from __future__ import annotations

import difflib
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
"""The name of the processor of this machine, whose limits are measured."""


@dataclass(frozen=True)
class Published:
    """What a model's makers say, in billions of weights as they print them. tables: which vocabulary tables their active figure counts."""

    total: float
    active: float
    tables: Tables


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue. native: the precision it is published in. note: which of several sources is right, and why."""

    name: str
    hub: str
    model: Model
    native: str
    published: Published
    source: str
    note: str = ""
    aliases: tuple[str, ...] = field(default=())


@cache
def models() -> Mapping[str, Entry]:
    """Every model by its name."""
    data = _read("models.yaml", "models")
    return {name: _entry(name, each) for name, each in data.items()}


@cache
def devices() -> Mapping[str, Device]:
    """Every device by its name; this machine's processor is not among them."""
    return {name: _device(name, each) for name, each in _read("hardware.yaml", "devices").items()}


def find_model(name: str) -> Entry | None:
    """The model of that name, alias or hub id, in any case."""
    word = name.lower()
    for entry in models().values():
        if word in (entry.name, entry.hub.lower(), entry.hub.lower().partition("/")[2], *entry.aliases):
            return entry
    return None


def need_model(name: str) -> Entry:
    """As find_model, but a UserError with advice."""
    entry = find_model(name)
    if entry is None:
        raise UserError(f"no model '{name}' in the catalogue", key="model", advice=did_you_mean(name.lower(), models()))
    return entry


def need_device(name: str) -> Device:
    """The device of that name or alias, 'm3-ultra-256gb' included; 'cpu' is measured, which takes seconds. UserError for no such one."""
    word = name.lower()
    if word == THIS_CPU:
        from enginebench.physics.this_cpu import this_cpu

        return this_cpu()
    known = _device_names()
    if word in known:
        return devices()[known[word]]
    variant = sized(devices()[family], word) if (family := known.get(word.rpartition("-")[0])) else None
    if variant is None:
        near = difflib.get_close_matches(word, known, n=1)  # an alias that was nearly hit is worth naming beside the names
        raise UserError(f"no device '{name}' in the catalogue", key="hardware", advice=did_you_mean(word, [*devices(), THIS_CPU, *near]))
    return variant


def read_machine(text: str, *, host_bandwidth: float | None = None) -> Machine:
    """'4xh100', '2xrtx4090+256gb', 'cpu'. host_bandwidth: bytes/s of the host's memory, else that of two DDR5 channels."""
    found = split_machine(text)
    if found is None:
        raise UserError(f"cannot read the hardware '{text}'", key="hardware", advice="write for example 4xh100 or 1xrtx4090+128gb")
    count, name, memory = found
    host = Host(memory) if memory is not None else None
    if host and host_bandwidth is not None:
        host = replace(host, bandwidth=host_bandwidth)
    return Machine(need_device(name), count, host)


@cache
def _device_names() -> Mapping[str, str]:
    """Every name and alias -> name."""
    listed = _read("hardware.yaml", "devices")
    return {alias: name for name, each in listed.items() for alias in (name, *each.get("aliases", ()))}


@cache
def _read(file: str, key: str) -> dict[str, Any]:
    data = yaml.safe_load((_DATA / file).read_text(encoding="utf-8"))
    if data["schema_version"] != _LAYOUT:
        raise ValueError(f"{file} has layout {data['schema_version']}, not {_LAYOUT}")
    found: dict[str, Any] = data[key]
    return found


def _entry(name: str, data: Mapping[str, Any]) -> Entry:
    return Entry(
        name=name,
        hub=data["hub"],
        model=from_config(name, data["config"]),
        native=data["native"],
        published=Published(**data["published"]),
        source=data["source"],
        note=data.get("note", ""),
        aliases=tuple(data.get("aliases", ())),
    )


def _device(name: str, data: Mapping[str, Any]) -> Device:
    link = data.get("link")
    reached = data.get("measured", {}).get("copy_gbs")
    return Device(
        name=name,
        memory=data["memory_gib"] * GIB,
        bandwidth=data["bandwidth_gbs"] * GB,
        flops={kind: rate * 1e12 for kind, rate in data["tflops"].items()},
        usable_share=data.get("usable_share", 1.0),
        link=Link(link["kind"], link["gbs"] * GB, link.get("per_peer", False), link.get("most")) if link else None,
        pcie=data["pcie_gbs"] * GB if "pcie_gbs" in data else None,
        network=data["network_gbs"] * GB if "network_gbs" in data else None,
        node=data.get("node", 8),
        tdp_w=data.get("tdp_w"),
        measured_bandwidth=reached * GB if reached else None,
        note=data.get("note", ""),
    )
