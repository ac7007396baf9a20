"""How values are written for people: numbers, intervals, shares, durations, sizes and stored settings. One definition for all outputs.

Returns plain text. It does not know metrics or markup.
"""

import json
import math
import re
from collections.abc import Mapping

from enginebench.domain.ids import JSON

_UNUSUAL = re.compile(r"[^ -~]")


def decimals(value: float) -> int:
    """Digits after the point that leave at least three significant digits."""
    if value == 0 or not math.isfinite(value):
        return 0
    exponent = int(f"{abs(value):.2e}".partition("e")[2])  # rounds first: 99.96 has the exponent of 100
    return max(0, 2 - exponent)


def number(value: float, places: int | None = None) -> str:
    """A measured number with at least three significant digits: '9.12', '41.0', '1,742'. places: digits after the point instead."""
    return f"{value:,.{decimals(value) if places is None else places}f}"


def interval(value: float, low: float | None, high: float | None, dash: str = "-") -> str:
    """'[1,701-1,790]' with the precision of its value; empty without both ends."""
    if low is None or high is None:
        return ""
    places = decimals(value)
    return f"[{number(low, places)}{dash}{number(high, places)}]"


def rounded(value: float, digits: int = 3) -> str:
    """At most so many significant digits, but every digit before the point, without trailing zeros: '3.5', '3,812'."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def percent(share: float, digits: int = 3) -> str:
    """A share as a percentage: '5 %', '99.5 %', '1,230 %'. Use more digits for a share that a user set: '99.95 %'."""
    return f"{rounded(100 * float(share), digits)} %"


def relative_change(relative: float, low: float | None = None, high: float | None = None) -> str:
    """A relative change with its interval: '+10.2 % [+8.1 to +12.0]'."""
    ends = "" if low is None or high is None else f" [{100 * low:+.1f} to {100 * high:+.1f}]"
    return f"{100 * relative:+.1f} %{ends}"


def duration(seconds: float) -> str:
    """'9.8 s', '12 min', '1.75 h'."""
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def brief(seconds: float) -> str:
    """Of a step: '25.4 ms', '9.8 s', '12 min'."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def size(count: float) -> str:
    """Bytes in binary units: '1 GiB', '31.34 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def gigabytes(count: float) -> str:
    """Bytes in decimal gigabytes, as memory is compared: '215.5 GB'."""
    return f"{count / 1e9:.1f} GB"


def counted(count: int, one: str, many: str | None = None) -> str:
    """'1 load', '2,000 loads', '2 searches'. many: the plural if it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def stored(value: JSON) -> str:
    """A stored value for reading: 'on', '4,096', '0.531', 'f16', '["a"]'; '-' for None."""
    if value is None or isinstance(value, bool):
        return "-" if value is None else "on" if value else "off"
    if isinstance(value, int | float):
        return number(value, 0 if isinstance(value, int) or value.is_integer() else None)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def label(value: JSON) -> str:
    """A setting as one word of a label: '0.5', '4096', 'f16'; empty for None. Exports of old runs hold these texts."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def flat(data: Mapping[str, JSON], prefix: str = "") -> dict[str, str]:
    """Nested data as dotted key -> text, without empty values; a list of scalars becomes one text."""
    out: dict[str, str] = {}
    for key, value in data.items():
        listed = isinstance(value, list) and any(isinstance(item, dict) for item in value)
        inner = {str(i): item for i, item in enumerate(value)} if isinstance(value, list) and listed else value
        if isinstance(inner, dict):
            out |= flat(inner, f"{prefix}{key}.")
        elif value not in (None, "", []):
            out[f"{prefix}{key}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return out


def printable(text: str, keep: str = "") -> str:
    """The text with control characters escaped (ANSI, bidi overrides, NUL), so that it controls no terminal. keep: those to leave."""
    return _UNUSUAL.sub(lambda found: c if (c := found[0]).isprintable() or c in keep else repr(c)[1:-1], text)


def printable_json(text: str) -> str:
    """The same JSON document, with the control characters that JSON allows in its strings escaped too. It may have line breaks."""
    return _UNUSUAL.sub(lambda found: c if (c := found[0]).isprintable() or c == "\n" else json.dumps(c)[1:-1], text)


def page_text(value: object) -> object:
    """What a template prints: text without control characters but line breaks and tabs. Markup, which is escaped already, stays."""
    return printable(value, "\n\t") if type(value) is str else value
