"""The shapes of the values of a program of named values, by torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from random_programs.program import Program
from random_programs.reference import Call, values_of

Shape = tuple[int, ...]
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def parameters_of(document: Mapping[str, Any]) -> dict[str, Shape]:
    """Return the shape of each parameter of a spec's Module, by the name that the reference has for it."""
    operands = document.get("operands", {}).items()
    found = {n: tuple(o["shape"]) for n, o in operands if isinstance(o, dict) and "shape" in o}
    for step in document["chain"]:
        word, given = next(iter(step.items())) if isinstance(step, dict) else (step, {})
        if word == "linear":
            found[f"{given['name']}_weight"] = (given["out_features"], given["in_features"])
            if given.get("bias", True):
                found[f"{given['name']}_bias"] = (given["out_features"],)
        if word == "batch_norm":
            found |= {f"{given['name']}_{held}": (given["features"],) for held in _BATCH_NORM}
    return found


def shapes_of(program: Program, place: int) -> dict[str, Shape]:
    """Return the shapes of all values that have a name, and of the last one as "x".

    Args:
        program: the program.
        place: 0 for `shape`, 1 for `other`.

    Raises:
        RuntimeError, ValueError, IndexError, TypeError, KeyError: torch refuses the program.
    """
    given = {n: tuple(shapes[place]) for n, shapes in (program.tensors or {}).items()}
    given |= parameters_of(program.document)
    operands = {n: torch.rand(shape) + 0.5 for n, shape in given.items()}
    operands = {n: t.round().long() * 0 if "target" in n else t for n, t in operands.items()}
    x = torch.rand((program.shape, program.other)[place]) + 0.5
    found = values_of(program.document, x, Call(operands, program.numbers))
    return {n: tuple(t.shape) for n, t in found.items() if n}
