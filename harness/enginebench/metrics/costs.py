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

JOULES_PER_KWH = 3.6e6
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
    """How long a purchased card is depreciated over, in constant use."""

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
    """The cost of a throughput on a number of devices. watts: measured, of all devices; bandwidth_gb_s: of one device."""
    price = prices.of(device)
    if watts is None and price.watts is not None:
        watts = price.watts * devices
    hourly = per_hour(price, devices, prices, watts)
    bought = price.card * devices if price.card else None
    return Cost(
        per_hour=hourly,
        per_million_tokens=per_million_tokens(hourly, tokens_per_s) if hourly is not None and tokens_per_s > 0 else None,
        tokens_per_s_per_money=tokens_per_s / bought if bought else None,
        bandwidth_per_money=bandwidth_gb_s * devices / bought if bought and bandwidth_gb_s is not None else None,
        joules_per_token=joules_per_token(watts, tokens_per_s) if watts is not None and tokens_per_s > 0 else None,
    )


def per_hour(price: DevicePrice, devices: int, prices: Prices, watts: float | None = None) -> float | None:
    """Money per hour: rent, else the card's price / its hours of use; plus watts x overhead x electricity. None without either price.

    It is also None where electricity has a price and the power is unknown, because the sum would be too small.
    """
    device_hour = price.hour
    if device_hour is None and price.card is not None:
        device_hour = price.card / (prices.years * HOURS_PER_YEAR)
    if device_hour is None:
        return None
    if prices.electricity is None:
        return device_hour * devices
    if watts is None:
        return None
    return device_hour * devices + watts / 1000 * prices.overhead * prices.electricity


def per_million_tokens(money_per_hour: float, tokens_per_s: float) -> float:
    """Money per million tokens: money per hour / (tokens/s x 3600) x 1e6. ValueError unless tokens/s is positive."""
    if tokens_per_s <= 0:
        raise ValueError("tokens_per_s must be positive")
    return money_per_hour / (tokens_per_s * SECONDS_PER_HOUR) * 1e6


def joules_per_token(watts: float, tokens_per_s: float) -> float:
    """Energy per token in J: watts / (tokens/s). ValueError unless tokens/s is positive."""
    if tokens_per_s <= 0:
        raise ValueError("tokens_per_s must be positive")
    return watts / tokens_per_s


def kwh_per_million_tokens(joules: float) -> float:
    """J/token as kWh per million tokens: J x 1e6 / 3.6e6."""
    return joules * 1e6 / JOULES_PER_KWH


def by_catalogue(prices: Prices) -> Prices:
    """The prices under the catalogue's device names ('h100' becomes 'h100-sxm-80gb'). UserError for an unknown device."""
    from enginebench.physics.catalogue import THIS_CPU, need_device

    named = {key if key in ("*", THIS_CPU) else need_device(key).name: price for key, price in prices.devices.items()}
    return replace(prices, devices=named)


# -- input -----------------------------------------------------------------------------------------------------------------------


_NUMBERS = ("electricity", "overhead", "years")
_DEVICE = ("hour", "card", "watts")


def read_prices(path: Path) -> Prices:
    """Prices from a YAML file; UserError with the line of the mistake.

    Keys: currency, electricity (per kWh), overhead (PUE), years, devices: {NAME: {hour, card, watts}}.
    """
    from enginebench.inputs.source import Location, Source, read

    source: Source = read(path)

    def number(value: JSON, at: Location) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
            raise source.error(f"must be a number above 0, got {value!r}", at, advice="write e.g. 2.50")
        return float(value)

    def mapping(value: JSON, at: Location, known: Sequence[str] | None) -> dict[str, JSON]:
        if not isinstance(value, dict):
            raise source.error("must be a mapping (key: value)", at)
        for key in value:
            if known is not None and key not in known:
                raise source.error("is not a known key", (*at, key), advice=did_you_mean(key, known))
        return value

    written = mapping(source.data, (), ("currency", "devices", *_NUMBERS))
    devices = {
        name: DevicePrice(
            **{key: number(value, ("devices", name, key)) for key, value in mapping(entry, ("devices", name), _DEVICE).items()}
        )
        for name, entry in mapping(written.get("devices", {}), ("devices",), None).items()
    }
    currency = written.get("currency", "USD")
    if not isinstance(currency, str):
        raise source.error("must be text, e.g. USD", ("currency",))
    return Prices(currency, devices, **{key: number(written[key], (key,)) for key in _NUMBERS if key in written})


def price_list(file: Path | str | None = None, given: Sequence[str] = ()) -> Prices:
    """The prices of devices and electricity, for the cost of tokens.

    file: a YAML file (see `read_prices`). given: single prices that change it, such as 'h100.hour=2.50' or 'electricity=0.30'.
    UserError for a device that the catalogue does not know, and for a price that is not a positive number.
    """
    return by_catalogue(with_flags(read_prices(Path(file)) if file is not None else Prices(), given))


def with_flags(prices: Prices, flags: Sequence[str]) -> Prices:
    """`prices` changed by flags: 'NAME.hour=2.5', 'hour=2.5' (every device), 'electricity=0.30', 'currency=EUR'."""
    for flag in flags:
        key, equals, text = flag.partition("=")
        device, _, what = key.rpartition(".")
        if not equals or what not in (*_DEVICE, *_NUMBERS, "currency") or (device and what not in _DEVICE):
            advice = f"write KEY=NUMBER; keys: {', '.join((*_DEVICE, *_NUMBERS))}, or DEVICE.hour for one device"
            raise UserError(f"--price {flag}: invalid price", advice=advice)
        if what == "currency":
            prices = replace(prices, currency=text)
            continue
        value = _positive(flag, text)
        if what == "electricity":
            prices = replace(prices, electricity=value)
        elif what == "overhead":
            prices = replace(prices, overhead=value)
        elif what == "years":
            prices = replace(prices, years=value)
        else:
            prices = replace(prices, devices=_with(prices, device or "*", what, value))
    return prices


def _with(prices: Prices, device: str, what: str, value: float) -> dict[str, DevicePrice]:
    """The device prices with one number changed. A price for every device does not change that of a named one."""
    old = prices.of(device)
    return dict(prices.devices) | {
        device: DevicePrice(**{key: value if key == what else getattr(old, key) for key in _DEVICE}),
    }


def _positive(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e12:
        raise UserError(f"--price {flag}: must be a number above 0", advice="write e.g. --price h100.hour=2.50")
    return value
