"""Why the clock of a GPU is reduced, in terms common to all vendors."""

from enum import IntFlag


class Throttle(IntFlag):
    """Reasons for a reduced clock. An idle device or a clock limit set by the user is not one."""

    POWER_CAP = 1
    HEAT = 2
    POWER_BRAKE = 4
    HARDWARE = 8

    @property
    def words(self) -> str:
        """The name of a single reason."""
        return {1: "power cap", 2: "heat", 4: "power brake", 8: "hardware slowdown"}[self.value]
