"""Which devices are alike in how much of their bandwidth and arithmetic engines reach: by maker, and by what they are built for."""

from __future__ import annotations

import re

_CLASSES = (
    (r"cpu.*", "cpu"),
    (r"m\d+(-.*)?", "apple"),
    (r"mi\d+.*", "amd data center"),
    (r"(rx-|radeon-|w7|r9700|ai-pro).*|\d{4}-?xtx?.*", "amd card"),
    (r"strix.*|ryzen.*", "amd unified memory"),
    (r"dgx-spark.*|gb10.*|jetson.*|thor.*|orin.*", "nvidia unified memory"),
    (r"(rtx|gtx|titan)-?.*|l\d+s?-.*|(a10g?|a16|a40|t4)-.*|quadro-.*", "nvidia card"),
    (r"gaudi.*|arc-.*|b580.*|max-1\d{3}.*", "intel"),
    (r"tpu.*|v[4-7][ep]?-.*", "tpu"),
    (r"(a|h|b|gh|gb|v)\d+.*", "nvidia data center"),
)
"""Pattern of a whole name -> class; the first that matches. A card has GDDR memory, also in a server: L40S, L4, A10."""


def device_class(name: str) -> str | None:
    """The class of a device of the catalogue, 'nvidia data center'; None for a device that is not of a known kind."""
    return next((kind for pattern, kind in _CLASSES if re.fullmatch(pattern, name)), None)
