"""How many accelerators of a vendor are here, without asking a driver: from the PCI bus, which containers see as well. Takes a millisecond.

Only the absence of devices is certain: a device on the bus may lack a driver, and some are on no bus (Jetson, WSL).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from enginebench.machine.accelerators import gpus, nvidia_gpus

Vendor: TypeAlias = Literal["nvidia", "amd"]
PCI = Path("/sys/bus/pci/devices")
_VENDORS: Mapping[Vendor, str] = {"nvidia": "0x10de", "amd": "0x1002"}
_CLASSES = ("0x03", "0x12")
"""Display controllers, and processing accelerators."""
_ELSEWHERE: Mapping[Vendor, tuple[str, ...]] = {
    "nvidia": ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu", "/etc/nv_tegra_release"),
    "amd": ("/dev/kfd", "/dev/dxg"),
}
"""Files of devices that are on no PCI bus."""


def most_devices(vendor: Vendor | None) -> int | None:
    """The most devices of a vendor (None: of any) that can be here; None where that is unknown."""
    if vendor is None:
        counts = [most_devices("nvidia"), most_devices("amd")]
        known = [count for count in counts if count is not None]
        return None if len(known) < len(counts) else sum(known) or len(gpus())
    on_bus = sum(_is_accelerator(device, _VENDORS[vendor]) for device in PCI.glob("*"))
    if on_bus:
        return on_bus
    if vendor == "nvidia" and (answering := len(nvidia_gpus())):
        return answering
    return None if any(Path(file).exists() for file in _ELSEWHERE[vendor]) else 0


def _is_accelerator(device: Path, vendor: str) -> bool:
    try:
        return (device / "vendor").read_text().strip() == vendor and (device / "class").read_text().startswith(_CLASSES)
    except OSError:
        return False
