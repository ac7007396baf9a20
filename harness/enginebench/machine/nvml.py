"""Opens NVML, NVIDIA's management library, through its Python binding. Does not know the values of a device. Nothing is ever set.

The binding is imported only where the library is installed. Unverified on real hardware; the tests load a stand-in library.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
LIBRARY = "libnvidia-ml.so.1"
DRIVER = Path("/proc/driver/nvidia/version")
"""Exists where NVIDIA's kernel driver is loaded."""


def connect() -> Any:
    """The binding, initialized until this process ends or calls nvmlShutdown. Raises LookupError with the reason where that fails."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        raise LookupError(f"{LIBRARY} not found") from None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise LookupError(str(error)) from None
    return pynvml


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """The binding for a few questions. Raises LookupError with the reason where NVML does not answer."""
    nvml = connect()
    try:
        yield nvml
    except nvml.NVMLError as error:
        raise LookupError(str(error)) from None
    finally:
        nvml.nvmlShutdown()


def answer(nvml: Any, question: Callable[[], T]) -> T | None:
    """What NVML answers; None where this device or driver does not support the question."""
    try:
        return question()
    except nvml.NVMLError:
        return None


def devices(nvml: Any) -> list[tuple[int, Any]]:
    """(index, handle) of every device that answers, in NVML's order."""
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        with contextlib.suppress(nvml.NVMLError):
            found.append((index, nvml.nvmlDeviceGetHandleByIndex(index)))
    return found


def text(value: str | bytes) -> str:
    """Older bindings return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
