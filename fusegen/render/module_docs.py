"""Writes how to call a generated package, for its docstrings: signatures, and a call that runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusegen.chain import Chain

#: The rows and columns of the example.
_ROWS, _COLS = 4, 8
#: The example's value for a number without a default.
_NUMBER = "0.5"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a generated function: its name, its type and its default as Python text."""

    name: str
    type: str
    default: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.type}" + (f" = {self.default}" if self.default else "")


def signature(name: str, required: Sequence[str], options: Sequence[Parameter]) -> str:
    """Return how to call a function: `apply(x, bias, *, training=True)`."""
    words = [*required, *(["*"] if options else []), *map(_with_default, options)]
    return f"{name}({', '.join(words)})"


def module_signature(constructor: Sequence[Parameter], inputs: Sequence[str]) -> str:
    """Return how to make and call a `Module`: `Module(in_features, out_features=8)(x)`."""
    made = ", ".join(map(_with_default, constructor))
    return f"Module({made})({', '.join(inputs)})"


def _with_default(parameter: Parameter) -> str:
    """Return a parameter's name, with its default if there is one."""
    return f"{parameter.name}={parameter.default}" if parameter.default else parameter.name


def example(chain: Chain, options: Sequence[Parameter]) -> list[str]:
    """Return the lines of a session that calls the chain's function, with the shapes of its results."""
    x = chain.example_shape(_ROWS, _COLS)
    shapes = chain.operand_shapes(x)
    dtypes = chain.spec.dtypes
    own = "" if "float32" in dtypes else f", dtype=torch.{dtypes[0]}"
    given = []
    for operand in chain.operands:
        sizes = ", ".join(map(str, shapes[operand.name]))
        made = f"torch.ones([{sizes}]{'' if operand.float32 else own})"
        if operand.integer or operand.mask:
            made = f"torch.zeros([{sizes}], dtype=torch.{'int64' if operand.integer else 'bool'})"
        given.append(f"{operand.name}={made}")
    given += [
        f"{option.name}={'1' if option.name in chain.groups else _NUMBER}"
        for option in options
        if not option.default
    ]
    results = chain.output_shapes(x)
    name, function = "outputs" if chain.spec.outputs else "y", chain.spec.function
    lines = [">>> import torch", f">>> x = torch.randn([{', '.join(map(str, x))}]{own})"]
    if len(given) > 1:
        each = (f"...     {g}," for g in given)
        lines += [f">>> {name} = {function}(", "...     x,", *each, "... )"]
    else:
        lines.append(f">>> {name} = {function}({', '.join(['x', *given])})")
    if chain.spec.outputs:
        return [*lines, ">>> [tuple(y.shape) for y in outputs]", str(list(results.values()))]
    return [*lines, ">>> tuple(y.shape)", str(*results.values())]
