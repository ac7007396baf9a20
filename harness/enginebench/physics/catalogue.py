"""The catalogues of models and devices: the YAML files in data/, and a user's own (`entries`).

Dimensions are those of the models' config.json; a test compares the figures computed from them with the published ones. Reads no
checkpoints. Measures nothing, except for the device 'cpu'.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from enginebench.errors import UserError, did_you_mean
from enginebench.physics import entries
from enginebench.physics.config import from_config
from enginebench.physics.device_catalogue import FILE, known_devices
from enginebench.physics.fields import Config
from enginebench.physics.geometry import Model, Tables
from enginebench.physics.machine import GB, Device, Host, Machine
from enginebench.physics.notation import EXAMPLE, Written, by_figures, normalized, read_written, recounted
from enginebench.physics.precision import precision

THIS_CPU = "cpu"
"""The CPU of this machine; its limits are measured."""
ANYTHING = "any"
"""`--hardware any` of a plan: no check against a machine; it states none."""
_MODELS = ("models.yaml", "models")
_NEAR = 0.02
"""Relative difference of a stated bandwidth from the catalogue's that is rounding."""


@dataclass(frozen=True)
class Published:
    """The vendor's figures, in billions of weights."""

    total: float
    active: float
    tables: Tables
    """The vocabulary tables that the active figure includes."""
    step: float = 0.0
    """The last digit of the total, if it is rounder than 1 %: 100 of '1T'."""


@dataclass(frozen=True)
class Entry:
    name: str
    hub: str
    config: Config = field(repr=False, compare=False)
    """The keys of its config.json that matter."""
    native: str
    """The precision of the published checkpoint."""
    published: Published
    source: str
    note: str = ""
    """If sources differ: which one is right, and why."""
    aliases: tuple[str, ...] = field(default=())

    @cached_property
    def model(self) -> Model:
        return from_config(self.name, self.config)


def models() -> Mapping[str, Entry]:
    return _models(entries.state(_MODELS[0]))


def devices() -> Mapping[str, Device]:
    """Every device by name, without this machine's CPU."""
    return known_devices().devices


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
    word, known = normalized(name), known_devices()
    if word == THIS_CPU:
        from enginebench.physics.this_cpu import this_cpu

        return this_cpu()
    if word == ANYTHING:
        raise UserError(
            "'any' states no hardware", key="hardware", advice="name a device, for example h100 (all devices: docs/hardware.md)"
        )
    if word in known.names:
        return known.devices[known.names[word][0]]
    if (found := known.sized(word)) is None:
        raise unknown_device(name.strip())
    return found


def unknown_device(name: str, *, driver: bool = False) -> UserError:
    """That the catalogue lacks a device, and how to add it. driver: the name is the one under which its driver reports it."""
    known = [*known_devices().names, THIS_CPU]
    near = " or ".join(f"'{each}'" for each in difflib.get_close_matches(normalized(name), known, n=3))
    entry = re.sub(r"[^a-z0-9.-]+", "-", normalized(name)).strip("-.") or "mydevice"
    quoted = name.replace("'", "''")
    listed = f"\n      drivers: ['{quoted}']" if driver else ""
    folder, here = entries.user_files(FILE)
    advice = (
        f"{f'did you mean {near}? ' if near else ''}To add it, write its figures to {here.name} in this folder, or to {folder}:\n"
        f"  devices:\n    {entry}:{listed}\n      memory_gib: 96\n      bandwidth_gbs: 1800\n      tflops: {{bf16: 200}}\n"
        f"  or state them: --hardware '{EXAMPLE.replace('box', entry)}' (all devices: docs/hardware.md)"
    )
    return UserError(f"unknown device '{name}'", key="hardware", advice=advice)


def read_machine(text: str, *, host_bandwidth: float | None = None) -> Machine:
    """Parse '4xh100', '2xrtx4090+256gb', 'cpu' or 'name=box,memory=96gb,bandwidth=1800gb/s'.

    host_bandwidth: bytes/s of host memory; None: that of two DDR5 channels. UserError for another form, and for an unknown device.
    """
    written = read_hardware(text)
    bandwidth = host_bandwidth or (written.figures or {}).get("host-bandwidth")
    host = Host(written.host) if written.host is not None else None
    if host and bandwidth is not None:
        host = Host(host.memory, bandwidth, stated=True)
    return Machine(_compared(written) if written.figures is not None else need_device(written.name), written.count, host)


def read_hardware(text: str) -> Written:
    """The parts of the notation. It does not say whether there is such a device."""
    return read_written(text, known_devices().names)


def with_count(text: str, count: int) -> str:
    """The same hardware with another number of devices."""
    return recounted(text, count, known_devices().names)


def self_contained(text: str) -> str:
    """The same hardware without a reference to a user's own catalogue: a stored run is read on other machines."""
    known, written = known_devices(), read_hardware(text)
    if written.figures is not None or written.name not in known.names or known.entries[known.names[written.name][0]].source is None:
        return text
    host = f"+{written.host / GB:g}gb" if written.host else ""
    return f"{written.count}x{by_figures(need_device(written.name))}{host}"


def driver_names() -> Mapping[str, tuple[str, ...]]:
    """Every name that a driver reports, in lower case -> the devices that it means, which differ by their memory."""
    return known_devices().drivers


def _compared(written: Written) -> Device:
    """The device that is written by its figures, with a remark if the catalogue has another bandwidth under its name."""
    device, known = written.device, known_devices()
    listed = known.devices[known.names[device.name][0]].bandwidth if device.name in known.names else device.bandwidth
    if abs(device.bandwidth - listed) <= _NEAR * listed:
        return device
    remark = f"{device.name} is stated with {device.bandwidth / GB:,.0f} GB/s; the catalogue has {listed / GB:,.0f} GB/s"
    return replace(device, remarks=(remark,))


# -- models ------------------------------------------------------------------------------------------------------------------------


@cache
def _models(state: entries.State) -> Mapping[str, Entry]:
    mine, built_in = entries.users(_MODELS[1], state), entries.own(*_MODELS)
    keys = {key for each in built_in.values() for key in each.data}
    own = {name: _own_model(each, keys) for name, each in mine.items()}  # first, so that a name or alias means them
    return {**own, **{name: _entry(name, each.data) for name, each in built_in.items() if name not in own}}


def _entry(name: str, data: Mapping[str, Any]) -> Entry:
    config = data["config"]
    if "published" in data:
        published = Published(**data["published"])
    else:
        model = from_config(name, config)
        published = Published(model.params / 1e9, model.active("both") / 1e9, "both")
    plain = {key: data.get(key, default) for key, default in (("hub", ""), ("native", "bf16"), ("source", ""), ("note", ""))}
    return Entry(name, config=config, published=published, aliases=tuple(each.lower() for each in data.get("aliases", ())), **plain)


def _own_model(listed: entries.Listed, keys: set[str]) -> Entry:
    """A model of a user's file: only `config` is needed. UserError with file, line and key."""
    data = listed.data
    for key in data:
        if key not in keys:
            raise listed.error("is not a known key", key, advice=did_you_mean(key, keys))
    if not isinstance(data.get("config"), dict):
        raise listed.error(
            "is missing" if "config" not in data else "must be a mapping", "config", advice="write the keys of its config.json"
        )
    if listed.name != listed.name.lower():
        raise listed.error("a model's name has lower-case letters", advice=f"write {listed.name.lower()}")
    try:
        precision(str(data.get("native", "bf16")))
        from_config(listed.name, data["config"])  # those of enginebench are read when they are asked for
        return _entry(listed.name, data)
    except UserError as error:
        at = ("native",) if error.key == "precision" else ("config", *filter(None, [error.key]))
        raise listed.error(error.message, *at, advice=error.advice) from None
    except (TypeError, ValueError, AttributeError, KeyError, ZeroDivisionError) as error:
        advice = "write the keys of its config.json under config, published as {total, active, tables}, and aliases as a list"
        raise listed.error(f"is no entry of a model ({error})", advice=advice) from None
