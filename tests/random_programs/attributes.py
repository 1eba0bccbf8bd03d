"""Random attributes of ops, from their declarations."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from fusegen.ops import Op

if TYPE_CHECKING:
    from random_programs.generate import Generator

_NUMBERS = (0.5, 2.0, -1.5, 0.125, 3.0, 0.3, 1.7, -0.7, 1.0, -1.0, 0.25, 4.0, 0.9)
_RARE = (0.0, 1e-3, 100.0, -30.0, 1e-7, 7.3)
#: The values of attributes whose range is not all numbers.
_RANGES: dict[str, tuple[Any, ...]] = {
    "alpha": (0.5, 1.0, 1.3, 2.5),
    "beta": (1.0, 0.5, 1.5, 3.0),
    "correction": (0, 1, 1, 2),
    "delta": (1.0, 0.7, 2.0),
    "eps": (1e-5, 1e-3, 0.01, 0.5),
    "ignore_index": (-100, 0, 1, 2),
    "label_smoothing": (0.0, 0.1, 0.3),
    "lambd": (0.5, 0.1, 1.0, 0.0),
    "max": (0.75, 2.0, 0.0),
    "max_val": (1.0, 0.5, 2.0),
    "min": (-0.5, -2.0, 0.0),
    "min_val": (-1.0, -0.5, 0.0),
    "momentum": (0.1, 0.3),
    "negative_slope": (0.01, 0.2, 0.0, -0.5),
    "p": (2.0, 1.0, 3.0, 1.5, "inf", "-inf", 0.0, 2.0),
    "threshold": (20.0, 2.0, 0.1),
    "value": (1.0, 0.5, -2.0, 20.0),
}
_DROPPED = (0.5, 0.1, 0.0, 0.3)


def number(rng: random.Random) -> float:
    """Return a number, mostly of moderate size."""
    return rng.choice(_RARE if rng.random() < 0.15 else _NUMBERS)


def attributes_of(op: Op, draft: Generator, keep: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return random attributes for an op.

    Args:
        op: the op.
        draft: the program to which it is added.
        keep: the only attributes to give, if not all.
    """
    rng = draft.rng
    given: dict[str, Any] = {}
    for name, default in op.attributes.items():
        if (keep and name not in keep) or name == op.groups:
            continue
        if name in op.dims or name == "dim":
            dim = draft.dims_for(op)
            if dim is not None:
                given[name] = dim
            continue
        if name in op.of_parts:
            continue
        if name not in op.required and rng.random() < 0.4:
            continue
        value = _value(op, name, default, rng)
        if isinstance(value, float) and name not in ("p",) and rng.random() < 0.15:
            value = draft.argument(value)
        given[name] = value
    if op.name == "clamp" and not {"min", "max"} & set(given):
        given["max"] = 0.5
    if op.name == "hardtanh" and not {"min_val", "max_val"} & set(given):
        given["min_val"] = -0.5
    return given


def _value(op: Op, name: str, default: Any, rng: random.Random) -> Any:
    if isinstance(default, bool):
        return rng.random() < 0.6
    if name == "p" and op.eval_mode == "identity":
        return rng.choice(_DROPPED)
    if name == "p" and op.name == "normalize":
        return rng.choice((2.0, 1.0, 3.0, 1.5))
    if name in op.choices and name != "p":
        return rng.choice(op.choices[name])
    if name == "threshold" and op.name == "threshold":
        return rng.choice((0.1, -0.5, 0.0))
    return rng.choice(_RANGES[name]) if name in _RANGES else number(rng)
