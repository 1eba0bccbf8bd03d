"""The constants that `fusegen/quadrant.h` uses: powers of two modulo 2 pi, and pi / 2 in parts."""

from __future__ import annotations

from pathlib import Path

import mpmath

from fusegen.base import paths

#: The exponent of a float32 with its 24 bits as an integer: from 0 on there are no bits behind the point.
LARGEST_POWER = 104
#: Bits of the first two parts of a remainder, behind the point: products with integers of 24 bits are exact.
FIRST_BITS, SECOND_BITS = 26, 55
#: The same of pi / 2, whose factor has 26 bits.
FIRST_BITS_OF_QUARTER, SECOND_BITS_OF_QUARTER = 26, 53


def parts(number: mpmath.mpf, first: int, second: int) -> tuple[float, float, float]:
    """Return a number as a sum: of what has `first` bits behind the point, `second` bits, and the rest."""
    high = mpmath.ldexp(mpmath.floor(mpmath.ldexp(number, first)), -first)
    middle = mpmath.ldexp(mpmath.floor(mpmath.ldexp(number - high, second)), -second)
    return float(high), float(middle), float(number - high - middle)


def remainders() -> list[tuple[float, float, float]]:
    """Return 2^n modulo 2 pi in three parts, for n from 0 to `LARGEST_POWER`."""
    with mpmath.workprec(400):
        turn = 2 * mpmath.pi
        found = [mpmath.fmod(mpmath.ldexp(1, n), turn) for n in range(LARGEST_POWER + 1)]
        return [parts(number, FIRST_BITS, SECOND_BITS) for number in found]


def quarter() -> tuple[float, float, float]:
    """Return pi / 2 in three parts."""
    with mpmath.workprec(400):
        return parts(mpmath.pi / 2, FIRST_BITS_OF_QUARTER, SECOND_BITS_OF_QUARTER)


def header() -> str:
    """Return the text of remainders.h."""
    columns = zip(*remainders(), strict=True)
    lines = [
        "// 2^n modulo 2 pi, for n from 0 to 104, and pi / 2, each as a sum of three doubles. The last place",
        "// is for infinities. Written by `python -m fusegen.tools.fitted_header`; do not edit.",
        "#pragma once",
        "",
        "#include <cmath>",
        "",
        "namespace fusegen {",
        "",
    ]
    for name, column in zip(("high", "middle", "low"), columns, strict=True):
        numbers = ", ".join([*(number.hex() for number in column), "NAN"])
        lines += [f"constexpr double remainder_{name}[] = {{{numbers}}};"]
    for name, part in zip(("high", "middle", "low"), quarter(), strict=True):
        lines += [f"constexpr double quarter_{name} = {part.hex()};"]
    return "\n".join([*lines, "", "}  // namespace fusegen", ""])


def path() -> Path:
    """Return the header's path."""
    return paths.include() / "fusegen" / "remainders.h"
