"""Amounts of bytes in words, for messages and tables alike. Nothing here may import: every list starts with it."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def human_size(size: int, precision: int = 3) -> str:
    """Bytes in decimal units with *precision* significant digits: 1.23GB. Source: docker/go-units HumanSize.

    Docker prints 999,999 bytes as «1e+03kB»; we print 1MB.
    """
    amount, unit = float(size), 0
    while unit < len(_UNITS) - 1 and (amount >= 1000 or float(f"{amount:.{precision}g}") >= 1000):
        amount /= 1000
        unit += 1
    return f"{amount:.{precision}g}{_UNITS[unit]}"
