"""Costs: money per million tokens, throughput per price, and energy per token. Pure functions.

Prices are input, from a YAML file or from flags; none is built in, because prices change. It does not know how throughput and power were
measured. Idle hours do not count: a cost is that of the hours in which the tokens were generated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from enginebench.domain import JSON
from enginebench.errors import UserError, did_you_mean

SECONDS_PER_HOUR = 3600.0
HOURS_PER_YEAR = 8766.0
"""365.25 days."""


@dataclass(frozen=True)
class DevicePrice:
    """What one device costs; None: unknown."""

    hour: float | None = None
    """Rent, money per device-hour."""
    card: float | None = None
    """Purchase price."""
    watts: float | None = None
    """Its power, used where none was measured."""


@dataclass(frozen=True)
class Prices:
    """Prices of one place and time."""

    currency: str = "USD"
    devices: Mapping[str, DevicePrice] = field(default_factory=dict)
    """Catalogue name of a device -> its price; '*' is the price of every other device."""
    electricity: float | None = None
    """Money per kWh; None: the rent includes it."""
    overhead: float = 1.0
    """Power drawn at the meter / power of the devices (PUE)."""
    years: float = 3.0
    """How long a purchased GPU is depreciated over, in constant use."""

    def of(self, device: str) -> DevicePrice:
        """The price of a device; all fields None if there is none."""
        return self.devices.get(device, self.devices.get("*", DevicePrice()))


@dataclass(frozen=True)
class Cost:
    """What a throughput costs; None where a price or the power is unknown."""

    per_hour: float | None
    """Money per hour of all devices."""
    per_million_tokens: float | None
    """Money per million tokens."""
    tokens_per_s_per_money: float | None
    """Tokens/s for each unit of money that the devices cost to buy."""
    bandwidth_per_money: float | None
    """GB/s for each unit of money that the devices cost to buy."""
    joules_per_token: float | None
    """At the devices, without overhead."""


def cost(
    tokens_per_s: float, device: str, devices: int, prices: Prices, *, watts: float | None = None, bandwidth_gb_s: float | None = None
) -> Cost:
    """The cost of a throughput on a number of devices. watts: measured, of all devices; bandwidth_gb_s: of one device.

    Money per hour is the rent, else the GPU's price / its hours of use; plus watts x overhead x electricity. It is None without either
    price, and where electricity has a price and the power is unknown, because the sum would be too small.
    """
    price = prices.of(device)
    if watts is None and price.watts is not None:
        watts = price.watts * devices
    hourly = price.hour
    if hourly is None and price.card is not None:
        hourly = price.card / (prices.years * HOURS_PER_YEAR)
    if hourly is not None:
        hourly *= devices
        if prices.electricity is not None:
            hourly = None if watts is None else hourly + watts / 1000 * prices.overhead * prices.electricity
    bought = price.card * devices if price.card else None
    runs = tokens_per_s > 0
    return Cost(
        per_hour=hourly,
        per_million_tokens=hourly / (tokens_per_s * SECONDS_PER_HOUR) * 1e6 if hourly is not None and runs else None,
        tokens_per_s_per_money=tokens_per_s / bought if bought else None,
        bandwidth_per_money=bandwidth_gb_s * devices / bought if bought and bandwidth_gb_s is not None else None,
        joules_per_token=watts / tokens_per_s if watts is not None and runs else None,
    )


# -- input -----------------------------------------------------------------------------------------------------------------------


_NUMBERS = ("electricity", "overhead", "years")
_DEVICE = ("hour", "card", "watts")


def price_list(file: Path | str | None = None, given: Sequence[str] = ()) -> Prices:
    """The prices of devices and electricity, for the cost of tokens.

    file: a YAML file (see `read_prices`). given: single prices that change it, such as 'h100.hour=2.50' or 'electricity=0.30'.
    UserError for a device that the catalogue does not know, and for a price that is not a positive number.
    """
    from enginebench.physics.catalogue import THIS_CPU, need_device

    prices = with_flags(read_prices(Path(file)) if file is not None else Prices(), given)
    named = {key if key in ("*", THIS_CPU) else need_device(key).name: price for key, price in prices.devices.items()}
    return replace(prices, devices=named)


def read_prices(path: Path) -> Prices:
    """Prices from a YAML file; UserError with the line of the mistake.

    Keys: currency, electricity (per kWh), overhead (PUE), years, devices: {NAME: {hour, card, watts}}.
    """
    from enginebench.inputs.source import Location, read

    source = read(path)

    def numbers(written: Mapping[str, JSON], keys: Sequence[str], at: Location) -> dict[str, float]:
        for key in keys:
            if key in written and not _is_price(written[key]):
                raise source.error(f"must be a number above 0, got {written[key]!r}", (*at, key), advice="write e.g. 2.50")
        return {key: float(written[key]) for key in keys if key in written}  # type: ignore[arg-type]  # checked above

    def mapping(value: JSON, at: Location, known: Sequence[str] | None) -> dict[str, JSON]:
        if not isinstance(value, dict):
            raise source.error("must be a mapping (key: value)", at)
        if unknown := next((key for key in value if known is not None and key not in known), None):
            raise source.error("is not a known key", (*at, unknown), advice=did_you_mean(unknown, known or ()))
        return value

    written = mapping(source.data, (), ("currency", "devices", *_NUMBERS))
    entries = mapping(written.get("devices", {}), ("devices",), None).items()
    devices = {
        name: DevicePrice(**numbers(mapping(entry, at, _DEVICE), _DEVICE, at)) for name, entry in entries for at in [("devices", name)]
    }
    currency = written.get("currency", "USD")
    if not isinstance(currency, str):
        raise source.error("must be text, e.g. USD", ("currency",))
    return Prices(currency, devices, **numbers(written, _NUMBERS, ()))


def with_flags(prices: Prices, flags: Sequence[str]) -> Prices:
    """`prices` changed by flags: 'NAME.hour=2.5', 'hour=2.5' (every device without a price of its own), 'currency=EUR'."""
    for flag in flags:
        key, equals, text = flag.partition("=")
        device, _, what = key.rpartition(".")
        if not equals or what not in (*_DEVICE, *_NUMBERS, "currency") or (device and what not in _DEVICE):
            advice = f"write KEY=NUMBER; keys: {', '.join((*_DEVICE, *_NUMBERS))}, or DEVICE.hour for one device"
            raise UserError(f"--price {flag}: invalid price", advice=advice)
        value = text if what == "currency" else _number(flag, text)
        if what in _DEVICE:
            name = device or "*"
            changed: dict[str, object] = {"devices": {**prices.devices, name: replace(prices.of(name), **{what: value})}}  # type: ignore[arg-type]
        else:
            changed = {what: value}
        prices = replace(prices, **changed)  # type: ignore[arg-type]  # by name
    return prices


def _number(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not _is_price(value):
        raise UserError(f"--price {flag}: must be a number above 0", advice="write e.g. --price h100.hour=2.50")
    return value


def _is_price(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12
