"""Kubernetes quantities: read, compared, and written as the API server writes them."""

from __future__ import annotations

import re
from fractions import Fraction

MIB = 1024**2

_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORM = re.compile(r"^([+-]?[0-9]*\.?[0-9]*)([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE]?)$")


def parse(value: str | int | float) -> Fraction:
    """The exact value; ValueError where it is no quantity."""
    number, suffix = _split(value)
    if suffix in _BINARY[1:]:
        return number * Fraction(1024 ** _BINARY.index(suffix))
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return number * Fraction(10) ** int(suffix[1:])
    return number * Fraction(10) ** _DECIMAL[suffix]


def canonical(value: str | int | float) -> str:
    """The form that the API server stores: no fraction, the largest suffix that holds the value exactly."""
    amount = parse(value)
    _, suffix = _split(value)
    if suffix in _BINARY[1:] and abs(amount) >= 1024 and amount.denominator == 1:
        return _binary(int(amount))
    return _decimal(amount)


def mebibytes(value: str | int | float) -> int:
    """The smallest whole number of MiB that is not less than the quantity."""
    return -int(-parse(value) // MIB)


def _split(value: str | int | float) -> tuple[Fraction, str]:
    match = _FORM.match(str(value))
    if match is None or not any(c.isdigit() for c in match[1]):
        raise ValueError(f"{value!r} is not a quantity such as 2, 500m or 12Gi")
    return Fraction(match[1]), match[2]


def _binary(amount: int) -> str:
    power = 0
    while power < len(_BINARY) - 1 and amount % 1024 == 0:
        amount //= 1024
        power += 1
    return f"{amount}{_BINARY[power]}"


def _decimal(amount: Fraction) -> str:
    if amount == 0:
        return "0"
    for suffix, power in reversed(_DECIMAL.items()):
        scaled = amount / Fraction(10) ** power
        if scaled.denominator == 1:
            return f"{int(scaled)}{suffix}"
    # Finer than a nano is rounded up, as the API server does.
    return f"{-int(-amount * 10**9 // 1)}n"
