"""Program: the intermediate representation, and the calculus on it.

In: formulas of atoms. Out: a `Program`, whose nodes are scalar expressions over values of four kinds, and by
`vjp` and `jvp` the programs of its derivatives, of any order. `fusegen.ops` declares the formulas.
"""

from __future__ import annotations

from fusegen.program.ir import (
    SECOND,
    Half,
    Input,
    Kind,
    Map,
    Outline,
    Output,
    Program,
    Reduce,
    Source,
    Take,
    Value,
    Whole,
    arguments,
    depths,
    describe,
    topological,
)

__all__ = [
    "SECOND",
    "Half",
    "Input",
    "Kind",
    "Map",
    "Outline",
    "Output",
    "Program",
    "Reduce",
    "Source",
    "Take",
    "Value",
    "Whole",
    "arguments",
    "depths",
    "describe",
    "topological",
]
