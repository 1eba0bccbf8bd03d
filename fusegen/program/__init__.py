"""Program: the intermediate representation, and the calculus on it.

Formulas of atoms become a `Program`, whose nodes are scalar expressions over values of four kinds. `vjp` and
`jvp` return the programs of its derivatives, to any order. `fusegen.ops` declares the formulas.
"""

from __future__ import annotations

from fusegen.program.access import SECOND, WHOLE, Access, Stored, ending
from fusegen.program.ir import (
    Input,
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
    kind_of_outline,
    topological,
)
from fusegen.program.kind import Kind, joined, kind_of_formula

__all__ = [
    "SECOND",
    "WHOLE",
    "Access",
    "Input",
    "Kind",
    "Map",
    "Outline",
    "Output",
    "Program",
    "Reduce",
    "Source",
    "Stored",
    "Take",
    "Value",
    "Whole",
    "arguments",
    "depths",
    "describe",
    "ending",
    "joined",
    "kind_of_formula",
    "kind_of_outline",
    "topological",
]
