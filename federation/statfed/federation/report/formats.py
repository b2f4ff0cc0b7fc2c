"""How the report writes numbers: one rule per quantity, used by the tables, the charts and the sentences alike.

A value that is missing or not a number is a dash; an infinite epsilon is the infinity sign, never a large number.
"""

import math
import re

DASH = "–"
_NBSP = "\u00a0"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(value: float | None) -> str:
    """A share in per cent with one decimal: all scores and shares.

    >>> percent(0.8726)
    '87.3\\xa0%'
    """
    return DASH if value is None or not math.isfinite(value) else f"{value * 100:.1f}{_NBSP}%"


def plain(text: str) -> str:
    """A written figure without needless decimals, for the ticks of an axis.

    >>> plain("600.0 KB"), plain("0.250 s"), plain("20")
    ('600 KB', '0.25 s', '20')
    """
    return re.sub(r"\.(\d*?)0+(?!\d)", lambda found: f".{found[1]}" if found[1] else "", text)


def points(value: float | None) -> str:
    """A signed difference of two shares in percentage points.

    >>> points(-0.0214)
    '−2.1'
    """
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{abs(value) * 100:.1f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return DASH if value is None else f"{value:,.0f}"


def epsilon(value: float | None) -> str:
    """Epsilon with two decimals, two significant digits below 0.1, rounded up: never less than was spent.

    >>> epsilon(3.9912), epsilon(0.00123), epsilon(float("inf"))
    ('4.00', '0.0013', '∞')
    """
    return _rounded(value, up=True)


def allowance(value: float | None) -> str:
    """An epsilon that may still be spent: as `epsilon`, rounded down.

    >>> allowance(3.9971), allowance(-0.5)
    ('3.99', '−0.50')
    """
    return _rounded(value, up=False)


def share(value: float | None) -> str:
    """What is taken of a budget, rounded up to two figures: `2.5 %`. A dash where nothing is known."""
    if value is None:
        return DASH
    if not 0.0 < value < math.inf:
        return "0 %" if value == 0.0 else "all"
    step = 10.0 ** (math.floor(math.log10(100.0 * value)) - 1)
    return f"{float(f'{math.ceil(100.0 * value / step - 1e-9) * step:.6g}'):,.10g} %"


def _rounded(value: float | None, up: bool) -> str:
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    digits = 2 if value == 0 or abs(value) >= 0.1 else 1 - math.floor(math.log10(abs(value)))
    scaled = round(value * 10**digits, 6)  # 4.000000001 is 4: binary fractions are no spending
    whole = (math.ceil if up else math.floor)(scaled)
    return f"{whole / 10**digits:,.{digits}f}".replace("-", "−")


def delta(value: float | None) -> str:
    """Delta as a power of ten.

    >>> delta(1e-5), delta(2.5e-6)
    ('10⁻⁵', '2.5\\xa0×\\xa010⁻⁶')
    """
    if value is None:
        return DASH
    mantissa, _, power = f"{value:.2e}".partition("e")
    digits = mantissa.rstrip("0").rstrip(".")
    ten = "10" + str(int(power)).translate(_SUPERSCRIPT)
    return ten if digits == "1" else f"{digits}{_NBSP}×{_NBSP}{ten}"


def number(value: float | None, decimals: int = 0) -> str:
    """A unitless figure: with `decimals` if given and enough for two significant digits, else four significant ones.

    >>> number(0.0123456), number(1.37, 3), number(0.0001234, 3)
    ('0.01235', '1.370', '0.0001234')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.{decimals}f}" if decimals and abs(value) >= 10.0 ** (1 - decimals) else f"{value:,.4g}"


def seconds(value: float | None) -> str:
    """A duration, always in seconds.

    >>> seconds(0.0421), seconds(75.26), seconds(4210)
    ('0.042\\xa0s', '75.3\\xa0s', '4,210\\xa0s')
    """
    if value is None or not math.isfinite(value):
        return DASH
    digits = 3 if abs(value) < 1 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}{_NBSP}s"


def size(value: float | None) -> str:
    """A number of bytes in decimal units.

    >>> size(512), size(72_344), size(4_560_000)
    ('512\\xa0B', '72.3\\xa0KB', '4.6\\xa0MB')
    """
    if value is None or not math.isfinite(value):
        return DASH
    if value < 1000:
        return f"{value:.0f}{_NBSP}B"
    unit = "KB" if value < 999_950 else "MB" if value < 999_950_000 else "GB"
    return f"{value / {'KB': 1e3, 'MB': 1e6, 'GB': 1e9}[unit]:,.1f}{_NBSP}{unit}"


def short(text: str, length: int = 12) -> str:
    """The first `length` characters of a digest or a long name, with an ellipsis if any were cut."""
    return text if len(text) <= length else text[: length - 1] + "…"
