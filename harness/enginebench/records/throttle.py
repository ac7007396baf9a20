"""Why a GPU's clock is held back. Knows no vendor's word for it."""

from __future__ import annotations

from enum import IntFlag


class Throttle(IntFlag):
    """Why a GPU's clock is not higher, in the same words for every vendor. An idle device, or chosen clocks, are not among them."""

    POWER_CAP = 1
    HEAT = 2
    POWER_BRAKE = 4
    HARDWARE = 8

    @property
    def words(self) -> str:
        """Of a single reason."""
        return {1: "power cap", 2: "heat", 4: "power brake", 8: "hardware slowdown"}[self.value]
