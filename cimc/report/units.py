"""The one place that turns numbers into text: three significant digits, SI prefixes, unit always beside the number."""

from __future__ import annotations

import math

NOTHING = "–"  # what an absent figure prints as

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"))


def significant(value: float, digits: int = 3) -> str:
    """A number at ``digits`` significant digits without exponent: ``1.2345`` → ``1.23``, ``123.4`` → ``123``."""
    if value == 0:
        return "0"
    whole = math.floor(math.log10(abs(value))) + 1
    text = f"{value:.{max(0, digits - whole)}f}"
    # 9.995 has one digit before the point, but rounds to 10.00: one decimal too many.
    if "." in text and len(text.lstrip("-").replace(".", "").lstrip("0")) > digits:
        text = f"{value:.{max(0, digits - whole - 1)}f}"
    return text


def si(value: float | None, unit: str, *, small: bool = True) -> str:
    """``value`` in base units with the prefix that leaves 1 to 999: ``si(4.56e-6, "J")`` → ``4.56 µJ``.

    ``small=False`` keeps what has no fractions (bytes, counts) from getting a milli prefix.
    """
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return f"{value} {unit}".rstrip()
    if value == 0:
        return f"0 {unit}".rstrip()
    table = _PREFIXES + _SMALL if small else _PREFIXES
    # The smallest number that prints as 1000 at three digits already belongs to the next prefix.
    scale, prefix = next(((s, p) for s, p in table if abs(value) >= s * 0.9995), table[-1])
    scaled = value / scale
    if scale == 1.0 and scaled == int(scaled):
        return f"{int(scaled)} {unit}".rstrip()
    return f"{significant(scaled)} {prefix}{unit}".rstrip()


def time_ns(nanoseconds: float | None) -> str:
    """A time given in ns: ``12300`` → ``12.3 µs``."""
    return si(None if nanoseconds is None else nanoseconds * 1e-9, "s")


def seconds(value: float | None) -> str:
    """A time given in seconds."""
    return si(value, "s")


YEAR = 365 * 86400.0  # seconds
_SPANS = ((YEAR, "years"), (86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))


def years(value: float) -> str:
    """A span given in years, in the largest unit of which it has one: ``15.9`` → ``15.9 years``, ``1.6e-4`` → ``1.4 hours``."""
    left = value * _SPANS[0][0]
    scale, unit = next(((s, u) for s, u in _SPANS if left >= s), (1.0, ""))
    return f"{left / scale:,.3g} {unit}" if unit else seconds(left)


def counted(count: int, one: str, several: str = "") -> str:
    """A count with its noun: ``1 tile``, ``2 tiles``."""
    return f"{whole(count)} {one if count == 1 else several or one + 's'}"


def energy_pj(picojoules: float | None) -> str:
    """An energy given in pJ: ``4560000`` → ``4.56 µJ``."""
    return si(None if picojoules is None else picojoules * 1e-12, "J")


def power_w(watts: float | None) -> str:
    """A power given in W."""
    return si(watts, "W")


def size_bytes(count: float | None) -> str:
    """A size in bytes, decimal prefixes: ``1230000`` → ``1.23 MB``."""
    return si(count, "B", small=False)


def large(count: float | None, unit: str = "") -> str:
    """A large count: ``1230000`` → ``1.23 M``."""
    return si(count, unit, small=False)


def area_mm2(area: float) -> str:
    """An area in mm², three digits of a small one: ``120.12`` → ``120.1``, ``0.0308`` → ``0.0308``."""
    return f"{area:,.1f}" if area >= 10 or not area else f"{area:.3g}"


def whole(count: int | None) -> str:
    """An exact count with thousands separators: ``1234567`` → ``1,234,567``."""
    return NOTHING if count is None else f"{count:,}"


def percent(fraction: float | None) -> str:
    """A share: ``0.123`` → ``12.3 %``; what is neither none nor all never prints as 0 % or 100 %."""
    if fraction is None:
        return NOTHING
    if not math.isfinite(fraction):
        return f"{fraction} %"
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    if 0.9995 <= fraction < 1:
        return ">99.9 %"
    return f"{fraction * 100:.1f} %"


def ratio(value: float | None) -> str:
    """A factor: ``1.5`` → ``×1.50``."""
    if value is None:
        return NOTHING
    return f"×{significant(value)}" if 0.001 <= abs(value) < 1e6 else f"×{value:.3g}"


def error(value: float | None) -> str:
    """A numeric error or similarity: short, in scientific notation where that is shorter."""
    return NOTHING if value is None else f"{value:.3g}"


def similarity(value: float | None) -> str:
    """A cosine: six decimals, and never rounded up to 1."""
    if value is None:
        return NOTHING
    return f"{math.floor(value * 1e6) / 1e6:.6f}"


def decibel(value: float | None) -> str:
    """A level in dB."""
    return NOTHING if value is None else f"{value:.1f} dB"


def printable(text: str) -> str:
    """A name from a file, safe to print: control characters, which a terminal would obey, become ``\\x1b`` etc."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


_AGES = ((YEAR, "y"), (2592000.0, "mo"), (86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def age(seconds: float) -> str:
    """Seconds in the largest unit that makes one or more of them: ``1 d``."""
    for size, name in _AGES:
        if seconds >= size:
            return f"{seconds / size:.4g} {name}"
    return f"{seconds:g} s"
