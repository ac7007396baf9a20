"""Every device that is known by name: those of enginebench, and those of a user's own hardware.yaml, which come first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from enginebench.physics import entries
from enginebench.physics.device_entry import DeviceEntry, device_entry
from enginebench.physics.machine import GIB, Device
from enginebench.physics.notation import read_written, size_of

FILE, SECTION = "hardware.yaml", "devices"


def known_devices() -> KnownDevices:
    """UserError with file, line and key for a user's file that is wrong."""
    return _devices(entries.state(FILE))


@dataclass(frozen=True)
class KnownDevices:
    devices: Mapping[str, Device]
    names: Mapping[str, tuple[str, ...]]
    """Name or alias -> the devices called so; a user's own come first. Several: one chip with sizes of memory that differ in more."""
    drivers: Mapping[str, tuple[str, ...]]
    entries: Mapping[str, entries.Listed]

    def sized(self, word: str) -> Device | None:
        """The device with the size of memory at the end of the word, with a remark if it is not sold with that size."""
        family, size = size_of(word) or (word, 0)
        devices = [device for name in self.names.get(family, ()) if (device := self.devices[name]).sizes]
        if not devices:
            return None
        device = next((each for each in devices if size in each.sizes), devices[0])
        sold = [f"{each:g}" for each in sorted({each for device in devices for each in device.sizes})]
        text = f"{', '.join(sold[:-1])} or {sold[-1]}" if len(sold) > 1 else sold[0]
        remarks = () if size in device.sizes else (f"the {family} is sold with {text} GB of memory, not with {size}",)
        return replace(device, name=word, memory=size * GIB, remarks=remarks)


@cache
def _devices(state: entries.State) -> KnownDevices:
    built_in, mine = entries.own(FILE, SECTION), entries.users(SECTION, state)
    listed = {**built_in, **mine}
    found: dict[str, DeviceEntry] = {name: device_entry(each) for name, each in listed.items()}
    _check_own_names(mine, found, built_in)
    names: dict[str, tuple[str, ...]] = {}
    drivers: dict[str, tuple[str, ...]] = {}
    for name, each in (*((name, each) for name, each in reversed(listed.items()) if name in mine), *listed.items()):
        aliases = (name, *each.data.get("aliases", ()), *(built_in[name].data.get("aliases", ()) if name in built_in else ()))
        for alias in aliases:
            names[alias] = tuple(dict.fromkeys((*names.get(alias, ()), name)))
        for said in found[name].drivers:
            drivers[said.strip().lower()] = tuple(dict.fromkeys((*drivers.get(said.strip().lower(), ()), name)))
    return KnownDevices({name: each.device(name) for name, each in found.items()}, names, drivers, listed)


def _check_own_names(mine: Mapping[str, entries.Listed], found: Mapping[str, DeviceEntry], built_in: Mapping[str, entries.Listed]) -> None:
    """UserError for a name of a user's file that another entry of it has, or that reads as a number of other devices ('2xh100')."""
    taken = {alias for name in built_in for alias in (name, *found[name].aliases)}
    seen: dict[tuple[Path, str], str] = {}
    for name, listed in mine.items():
        assert listed.source is not None  # noqa: S101  # a user's has one
        for at, alias in (((), name), *((("aliases", i), alias) for i, alias in enumerate(found[name].aliases))):
            other = seen.setdefault((listed.source.file, alias), name)
            if other != name:
                raise listed.error(f"'{alias}' is also a name of {other}", *at, advice="names and aliases of a file are unique")
            if (written := read_written(alias)).count > 1 and written.name in taken | set(mine):
                raise listed.error(f"'{alias}' reads as {written.count} devices", *at, advice="begin the name with a letter")
