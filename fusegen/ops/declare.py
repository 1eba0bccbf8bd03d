"""How an op is declared: one function that returns its formula.

The function's positional parameters are the activation `x` and the operands; its keyword-only
parameters are attributes, with torch's names and defaults. It is called with sympy symbols (or
numbers, for attributes and for operands that the spec gives as constants) and returns a sympy
expression. Derivatives, kernels, tests and docs all follow from that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import sympy as sp

from fusegen.atoms.constants import number
from fusegen.ops.model import Attribute, EvalMode, Op, Over, Range, Submodule
from fusegen.program import Kind

_REGISTRY: dict[str, Op] = {}
_ALIASES: dict[str, str] = {}


class RefusedError(ValueError):
    """Attributes that do not go together. The message continues after the op's name."""


def op(
    torch: str = "",
    *,
    own: tuple[str, ...] = (),
    constant: tuple[str, ...] = (),
    classes: str = "",
    by_probabilities: Callable[..., sp.Expr] | None = None,
    conditions: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
    kinds: Mapping[str, Kind] | None = None,
    eval_mode: EvalMode = "same",
    submodule: Submodule | None = None,
    owned: Submodule | None = None,
    trained: Callable[..., sp.Expr] | None = None,
    tracked: Mapping[str, str] | None = None,
    source: bool = False,
    rank: int = 0,
    matrix: bool = False,
    inputs: tuple[str, ...] = (),
    keeps_channels: bool = False,
    pools: bool = False,
    dims: tuple[str, ...] = (),
    several: bool = False,
    one_in_torch: bool = False,
    over: Over | None = None,
    groups: str = "",
    indexes: bool = False,
    several_values: bool = False,
    parts: tuple[str, ...] = (),
    of_parts: tuple[str, ...] = (),
    paired: bool = False,
    coarse: bool = False,
    choices: Mapping[str, tuple[str, ...]] | None = None,
    ranges: Mapping[str, Range] | None = None,
    ascending: tuple[str, ...] = (),
    refused: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., sp.Expr]], Op]:
    """Declare the decorated function as an op under its own name; see `Op` for the arguments.

    `by_probabilities` is the formula of that op; it lacks the attributes that it has no use for.

    Raises:
        ValueError: if `over` is not valid, or an op of the name exists.
    """

    if over is not None and over not in get_args(Over):
        raise ValueError(f"over is one of {', '.join(get_args(Over))}, not {over!r}")

    def declare(formula: Callable[..., sp.Expr]) -> Op:
        name = formula.__name__.rstrip("_")
        operands, attributes, required, optional = _parameters(formula, kinds or {})
        declared = Op(
            name=name,
            formula=formula,
            operands=operands,
            attributes=attributes,
            required=required,
            torch=torch,
            own=own,
            constant=(*constant, *conditions, *([classes] if classes else [])),
            optional=optional,
            classes=classes,
            conditions=conditions,
            eval_mode=eval_mode,
            submodule=submodule,
            owned=owned,
            trained=trained,
            tracked=tracked or {},
            source=source,
            rank=rank,
            matrix=matrix,
            inputs=inputs,
            keeps_channels=keeps_channels,
            pools=pools,
            dims=dims,
            several=several,
            one_in_torch=one_in_torch,
            over=over,
            groups=groups,
            indexes=indexes,
            several_values=several_values,
            parts=parts,
            of_parts=of_parts,
            paired=paired,
            coarse=coarse,
            choices=choices or {},
            ranges=ranges or {},
            ascending=ascending,
            refused=refused or {},
            aliases=aliases,
        )
        if by_probabilities is not None:
            declared = replace(
                declared,
                by_probabilities=_by_probabilities(declared, by_probabilities, kinds or {}),
            )
        for key in (name, *aliases):
            if key in _REGISTRY or key in _ALIASES:
                raise ValueError(f"two ops are called {key!r}")
        _REGISTRY[name] = declared
        _ALIASES.update(dict.fromkeys(aliases, name))
        return declared

    return declare


def _parameters(
    formula: Callable[..., sp.Expr], kinds: Mapping[str, Kind]
) -> tuple[
    dict[str, Kind | None], dict[str, Attribute | None], frozenset[str], dict[str, int | None]
]:
    """Return a formula's operands with their kinds, its attributes, which of these must be given, and the
    operands that may be left out."""
    operands: dict[str, Kind | None] = {}
    attributes: dict[str, Attribute | None] = {}
    required: set[str] = set()
    optional: dict[str, int | None] = {}
    for parameter in list(inspect.signature(formula).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY:
            missing = parameter.default is parameter.empty
            attributes[parameter.name] = None if missing else parameter.default
            required |= {parameter.name} if missing else set()
        else:
            operands[parameter.name] = kinds.get(parameter.name)
            if parameter.default is not parameter.empty:
                optional[parameter.name] = parameter.default
    return operands, attributes, frozenset(required), optional


def _by_probabilities(
    classed: Op, formula: Callable[..., sp.Expr], kinds: Mapping[str, Kind]
) -> Op:
    """Return the op that takes probabilities where another one takes classes."""
    operands, attributes, required, optional = _parameters(formula, kinds)
    no_use = f"only a {classed.classes} of int64 has it"
    lacking = dict.fromkeys(classed.attributes.keys() - attributes.keys(), no_use)
    return replace(
        classed,
        formula=formula,
        operands=operands,
        attributes=attributes,
        required=required,
        optional=optional,
        classes="",
        constant=tuple(name for name in classed.constant if name != classed.classes),
        refused={**classed.refused, **lacking},
    )


def registered() -> Mapping[str, Op]:
    """Return every declared op by its name."""
    return _REGISTRY


def aliases() -> Mapping[str, str]:
    """Return the aliases of ops, each with the op's name."""
    return _ALIASES


def find(name: str) -> Op | None:
    """Return the op with a name or alias."""
    return _REGISTRY.get(_ALIASES.get(name, name))


def call(
    declared: Op,
    x: sp.Expr,
    operands: Mapping[str, Any],
    attributes: Mapping[str, Any],
    *,
    training: bool = False,
) -> sp.Expr:
    """Return the op's expression of `x`, with its operands and attributes bound."""
    given = {**declared.attributes, **attributes}
    given = {k: number(v) if isinstance(v, float) else v for k, v in given.items()}
    bound = {**declared.optional, **operands}
    formula = (declared.trained if training else None) or declared.formula
    return sp.sympify(formula(x, *(bound[name] for name in declared.operands), **given))
