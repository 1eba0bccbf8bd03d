"""Spec: a YAML file becomes a `Spec`, checked, or one error with its file and line.

In: the text of a file. Out: `Spec`, whose steps are ops and formulas (`formula/`) with what they are given.
`fusegen.chain` derives programs from it. The language is in docs/specs.md.
"""

from __future__ import annotations

from fusegen.spec.read import Argument, Operand, Ref, Spec, Step, load, parse

__all__ = ["Argument", "Operand", "Ref", "Spec", "Step", "load", "parse"]
