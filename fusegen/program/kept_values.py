"""Derivatives that read what the forward pass returned, in place of the tensors that it took.

The derivative of a softmax needs only its value: grad_x = y (grad_y - sum(y grad_y)). That of a norm of
x + r needs only the sum, if it is returned too. That of relu(x + r) needs only the value, which is positive
where the sum is. The tensors that came in are then not kept for the backward pass. What came out is kept by
whoever uses it, so it costs nothing, and of x + r one tensor is read instead of two.

The next derivative is that of this one, by the returned value. autograd hands its gradient on to the forward
pass, which returned it. In 16 bits a returned value was rounded as it was stored, as torch's own derivatives
read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import sympy as sp
from sympy.core.relational import Relational

from fusegen.atoms.special import where
from fusegen.program.builder import Builder
from fusegen.program.ir import (
    Input,
    Map,
    Output,
    Program,
    Reduce,
    Value,
    arguments,
    topological,
)
from fusegen.program.kind import Kind

__all__ = ["read_kept"]


@dataclass(frozen=True)
class _Inverse:
    """How an earlier value follows from a returned one.

    Args:
        value: the earlier value, or the returned value itself.
        factor: what the returned value is multiplied by.
        divisor: the sum in that factor, if it has one.
        signed: the returned value, if it has only the sign of the earlier one.
    """

    value: Map
    factor: sp.Expr = sp.S.One
    divisor: Reduce | None = None
    signed: Map | None = None


def read_kept(forward: Program, derivative: Program) -> Program:
    """Return a derivative that reads a returned value where it can do without the tensors that were taken.

    Args:
        forward: the program, without saved values.
        derivative: its vector-Jacobian product, which shares its nodes.

    Returns:
        The derivative, with `kept` set; or the given one, if it needs the tensors as well.
    """
    found = [
        made
        for name, output in forward.returned.items()
        for inverse in _inverses(forward, output)
        if (made := _through(forward, derivative, name, inverse))
    ]
    return min(found, key=lambda made: len(_read(made, forward)), default=derivative)


def _inverses(forward: Program, output: Output) -> Iterator[_Inverse]:
    """Yield the values that follow from an output: itself if it is a sum, a where it is a / sum, and the sign
    of a where it is that of a.

    Other values, such as exp(x), have more digits where they are computed again.
    """
    value, own = output.value, output.like
    whole = output.outline == "like" and own.access.kind == Kind.FULL and own.access.count == 1
    if not whole or own.access.stored != "x" or not isinstance(value, Map):
        return
    if value.kind != Kind.FULL:
        return
    if value.expr.is_Add and not _has_maximum(forward, value):
        yield _Inverse(value)
    if len(value.args) == 1 and isinstance(value.args[0], Map) and _keeps_sign(value):
        yield _Inverse(value.args[0], signed=value)
    powers = value.expr.as_powers_dict()
    sums = [a for a in value.args if isinstance(a, Reduce) and a.op == "sum" and not a.sample]
    parts = [a for a in value.args if isinstance(a, Map) and a.kind == Kind.FULL]
    if len(sums) == len(parts) == 1 and len(value.args) == 2:
        (divisor,), (part,) = sums, parts
        number = value.expr * divisor.symbol / part.symbol
        if powers[divisor.symbol] == -1 and number.is_Number and number.is_nonzero:
            yield _Inverse(part, divisor.symbol / number, divisor)


def _keeps_sign(value: Map) -> bool:
    """Return whether a value is positive exactly where its argument is: a relu, leaky or not."""
    if not isinstance(value.expr, sp.Piecewise) or len(value.expr.args) != 2:
        return False
    s = value.args[0].symbol
    (first, condition), (second, _) = value.expr.args
    if condition == (s <= 0):
        first, second = second, first
    elif condition != (s > 0):
        return False
    slope = second / s
    return bool(first == s and slope.is_number and slope.is_nonnegative)


def _has_maximum(forward: Program, value: Value) -> bool:
    """Return whether a maximum depends on a value.

    A value that was rounded is not the one that the maximum was found of: it may be larger, or no longer
    equal.
    """
    above = {value}
    for node in forward.nodes():
        if any(a in above for a in arguments(node)):
            above.add(node)
            if isinstance(node, Reduce) and node.op == "max":
                return True
    return False


def _through(forward: Program, derivative: Program, name: str, inverse: _Inverse) -> Program | None:
    """Return the derivative by way of an output, or None if it must still read what that stands for."""
    like = forward.outputs[name].like
    known = {v.name for v in (*derivative.inputs, *derivative.nodes())}
    own = next(
        n for n in (f"kept_{name}{'_' * k}" for k in range(len(known) + 1)) if n not in known
    )
    kept = Input(own, Kind.FULL, replace(like.access, tensor=own))
    rewritten = _Rewriting(kept, inverse).outputs(derivative)
    if rewritten is None:
        return None
    made = replace(derivative, outputs=rewritten)
    before, read = _read(derivative, forward), _read(made, forward)
    needed = {*made.nodes()}
    free = [i for i in forward.inputs if i in before and i not in needed and _lies_as(i, kept)]
    fewer = len(read) < len(before) or inverse.divisor or inverse.signed
    if not free or not fewer or not (like in free or inverse.signed):
        return None
    place = like if like in free else free[0]
    outputs = {n: replace(o, like=kept) if o.like is place else o for n, o in rewritten.items()}
    inputs = tuple(kept if i is place else i for i in derivative.inputs)
    kept_as = {i.tensor: name for i in free}
    return replace(made, inputs=inputs, outputs=outputs, kept=kept_as)


def _read(derivative: Program, forward: Program) -> set[Input]:
    """Return the tensors of the activation's size that a derivative reads, if the forward saves its sums."""
    sums = {v.name for v in forward.nodes() if isinstance(v, Reduce)}
    return {
        v
        for v in derivative.nodes(derivative.named(sums))
        if isinstance(v, Input) and v.source == "tensor" and v.access.kind == Kind.FULL
    }


def _lies_as(own: Input, kept: Input) -> bool:
    """Return whether a tensor lies in memory as the kept one, which can then be passed in its place."""
    return replace(own.access, tensor=kept.tensor) == kept.access


class _NotPossibleError(Exception):
    """A node cannot be computed from what was kept."""


class _Rewriting:
    """Rewrites the nodes of a derivative in terms of a kept value, arguments first.

    Each value becomes a factor times a new one; the factor is a power of the divisor. These powers are
    carried along, out of sums over the row too, until they cancel: sum(grad_y y s) / s is sum(grad_y y). A
    sum that the forward pass saves becomes that of the kept value, and has its old name.
    """

    def __init__(self, kept: Input, inverse: _Inverse) -> None:
        self.inverse = inverse
        self.builder = Builder()
        self.builder.adopt([kept])
        self.made: dict[Value, tuple[sp.Expr, Value]] = {inverse.value: (inverse.factor, kept)}
        if inverse.signed is not None:
            self.made[inverse.signed] = (sp.S.One, kept)

    def outputs(self, derivative: Program) -> dict[str, Output] | None:
        """Return the derivative's outputs, rewritten; None if one cannot be."""
        roots = [output.value for output in derivative.outputs.values()]
        try:
            for value in topological(roots, self._below):
                if value not in self.made:
                    self.made[value] = self._rewritten(value)
        except _NotPossibleError:
            return None
        found = {}
        for name, output in derivative.outputs.items():
            factor, value = self.made[output.value]
            if factor != 1:
                value = self.builder.map(value.name, factor * value.symbol)
            found[name] = replace(output, value=value)
        return found

    def _below(self, value: Value) -> tuple[Value, ...]:
        if value in (self.inverse.value, self.inverse.signed):
            return (self.inverse.divisor,) if self.inverse.divisor else ()
        return () if value is self.inverse.divisor else arguments(value)

    def _rewritten(self, value: Value) -> tuple[sp.Expr, Value]:
        """Return a value as a factor and a new value."""
        made = {a: self.made[a] for a in self._below(value)}
        changed = {a: pair for a, pair in made.items() if pair != (1, a)}
        if not changed:
            self.builder.adopt([value])
            return sp.S.One, value
        if isinstance(value, Map) and value.whole is None:
            terms = {a.symbol: factor * new.symbol for a, (factor, new) in changed.items()}
            _check_conditions(value.expr, terms)
            if self.inverse.signed is not None and self.inverse.value in changed:
                _check_read_by_sign(value.expr, self.inverse.value.symbol)
            factor, rest = self._without_divisor(value.expr.xreplace(terms))
            return factor, self.builder.map(value.name, rest, value.note)
        if isinstance(value, Reduce) and value.op == "sum" and not value.sample:
            factor, arg = made[value.arg]
            if factor != 1 and value.axes != Kind.COL:  # it varies along the rows that are added
                arg, factor = self.builder.map(value.arg.name, factor * arg.symbol), sp.S.One
            return factor, self.builder.reduce(value.name, "sum", arg, value.kind)
        raise _NotPossibleError

    def _without_divisor(self, expr: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
        """Return the power of the divisor in a product, and the other factors."""
        if self.inverse.divisor is None:
            return sp.S.One, expr
        symbol = self.inverse.divisor.symbol
        if isinstance(expr, sp.Piecewise):  # of what is not selected, 0 is any multiple
            (chosen, condition), *others = expr.args
            if [value for value, _ in others] == [0]:
                power, rest = self._without_divisor(chosen)
                return power, where(condition, rest, 0)
        power = symbol ** expr.as_powers_dict().get(symbol, 0)
        return power, expr / power


def _check_read_by_sign(expr: sp.Expr, symbol: sp.Symbol) -> None:
    """Refuse an expression that reads more of a value than its sign."""
    relations = expr.atoms(Relational)
    if expr.xreplace(dict.fromkeys(relations, sp.true)).has(symbol):
        raise _NotPossibleError


def _check_conditions(expr: sp.Expr, changed: Collection[sp.Symbol]) -> None:
    """Refuse a comparison with anything but 0: a rounded value may lie on the other side of it."""
    for relation in expr.atoms(Relational):
        if relation.free_symbols & set(changed) and 0 not in relation.args:
            raise _NotPossibleError
