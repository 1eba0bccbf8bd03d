"""The same chain and the same programs by torch's own functions, to compare with.

Nothing here is used by generated code. Ops are run by their torch reference, formulas and programs by
walking the expression, in whatever dtype the tensors have: float64 gives the truth.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp
import torch
from sympy.core.relational import Relational
from torch import Tensor

from fusegen import atoms, ops
from fusegen.chain import Chain
from fusegen.chain_layout import stretches_of
from fusegen.program import SECOND, Input, Kind, Map, Program, Reduce, Take
from fusegen.spec_types import Ref, Spec, Step
from fusegen.torch_call import Given, torch_call

_FUNCTIONS: dict[Any, Callable[..., Tensor]] = {
    atoms.absolute: torch.abs,
    atoms.expm1: torch.expm1,
    atoms.log1p: torch.log1p,
    atoms.normcdf: torch.special.ndtr,
    atoms.normpdf: lambda x: torch.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    atoms.sigmoid: torch.sigmoid,
    atoms.sign: torch.sign,
    atoms.softplus: lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    sp.cos: torch.cos,
    sp.erf: torch.erf,
    sp.exp: torch.exp,
    sp.log: torch.log,
    sp.sin: torch.sin,
    atoms.power: torch.pow,
    atoms.tanh: torch.tanh,
    atoms.sech2: lambda x: 1 / torch.cosh(x).square(),
    atoms.Total: torch.sum,
}
#: Functions of a tensor and the dims that make up a row.
_REDUCTIONS: dict[Any, Callable[..., Tensor]] = {
    atoms.RowSum: lambda x, dims: x.sum(dims, keepdim=True),
    atoms.RowMax: lambda x, dims: x.amax(dims, keepdim=True),
    atoms.RowShift: lambda x, dims: x.amax(dims, keepdim=True).detach(),
}
_COMPARE = {
    **{">": torch.gt, ">=": torch.ge, "<": torch.lt, "<=": torch.le},
    **{"==": torch.eq, "!=": torch.ne},
}


def evaluate(
    expr: sp.Basic,
    values: Mapping[str, Tensor],
    draws: Callable[[int], Tensor],
    dims: tuple[int, ...] = (-1,),
) -> Any:
    """Return an expression's value.

    Args:
        expr: over symbols whose names are in `values`.
        values: tensors that broadcast with one another.
        draws: gives the uniform numbers of a stream.
        dims: the dims that make up a row.
    """
    if expr.is_Symbol:
        return values[str(expr)]
    if isinstance(expr, atoms.Draw):
        return draws(int(expr.args[0]))
    if isinstance(expr, atoms.Special):
        return expr.value
    if not expr.has(atoms.Draw) and expr.is_number:
        return float(expr)
    if isinstance(expr, atoms.Let):
        return evaluate(expr.value, values, draws, dims)
    if isinstance(expr, sp.Piecewise):
        *cases, (last, _) = expr.args
        result = evaluate(last, values, draws, dims)
        for value, condition in reversed(cases):
            assert isinstance(condition, Relational)
            left, right = (evaluate(s, values, draws, dims) for s in (condition.lhs, condition.rhs))
            holds = _COMPARE[condition.rel_op](torch.as_tensor(left), right)
            chosen, other = evaluate(value, values, draws, dims), result
            result = torch.where(
                holds, *(torch.as_tensor(v, dtype=_dtype(values)) for v in (chosen, other))
            )
        return result
    args = [evaluate(arg, values, draws, dims) for arg in expr.args]
    if expr.is_Add:
        return functools.reduce(lambda a, b: a + b, args)
    if expr.is_Mul:
        return functools.reduce(lambda a, b: a * b, args)
    if expr.is_Pow:
        return args[0] ** args[1]
    if expr.func in _REDUCTIONS:
        return _REDUCTIONS[expr.func](args[0], dims) if dims else args[0]  # no dims: one column
    return _FUNCTIONS[expr.func](*args)


def _dtype(values: Mapping[str, Tensor]) -> torch.dtype:
    return next(iter(values.values())).dtype


def run_program(program: Program, inputs: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Return a program's outputs, by name, for an activation of two dims.

    Args:
        program: any program.
        inputs: its inputs by name: full [rows, cols], col [cols], row [rows, 1], scalar [1].
        seed: the seed of its draws.
    """
    values: dict[str, Tensor] = dict(inputs)
    x = inputs["x"]
    rows, cols = x.shape
    sample = -(-rows // 16)  # the rows that `Reduce.sample` takes
    for node in program.nodes():
        if isinstance(node, Input) and node.name not in values:
            if node.source == "index":
                values[node.name] = torch.arange(cols).to(x)
            elif node.source == "extent":
                extents = {"rows": rows, "cols": cols, "sample": sample}
                values[node.name] = torch.tensor(float(extents[node.name]), dtype=x.dtype)
            else:
                values[node.name] = uniform(seed, node.stream, x.shape).to(x)
        elif isinstance(node, Map):
            value = evaluate(node.expr, values, _no_draws)
            values[node.name] = torch.as_tensor(value, dtype=x.dtype, device=x.device)
        elif isinstance(node, Take):
            values[node.name] = _taken(
                values[node.arg.name].expand(rows, cols), values[node.index.name]
            )
        elif isinstance(node, Reduce):
            whole = values[node.arg.name]
            if node.arg.kind == Kind.FULL:
                whole = whole.expand(rows, cols)
            if node.sample:
                whole = whole[:sample]
            dims = {Kind.ROW: (-1,), Kind.COL: (0,), Kind.SCALAR: tuple(range(whole.dim()))}[
                node.kind
            ]
            reduce = torch.sum if node.op == "sum" else torch.amax
            values[node.name] = reduce(whole, dim=dims, keepdim=node.kind == Kind.ROW)
    found = {}
    for name, out in program.outputs.items():
        own = inputs[out.like.name].shape
        shapes = {"like": own, "half": own, "scalar": ()}
        value = values[out.value.name]
        found[name] = value.reshape(()) if out.outline == "scalar" else value
        found[name] = found[name].expand(shapes.get(out.outline, (rows, 1)))
    return found


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """Return each row's element [rows, 1] in the column `index` [rows, 1], the first where it is none."""
    column = index.long()
    known = (column >= 0) & (column < x.shape[-1])
    return x.gather(-1, torch.where(known, column, 0))


def _drawn(numbers: Tensor, stream: int) -> Tensor:
    del stream
    return numbers


def _no_draws(stream: int) -> Tensor:
    raise ValueError(f"stream {stream}: a program's draws are inputs")


def run_chain(
    spec: Spec,
    x: Tensor,
    operands: Mapping[str, Tensor],
    attributes: Mapping[str, float],
    *,
    training: bool = False,
    seed: int = 0,
    handed: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Return the chain behind the matmul, by torch's own functions.

    Args:
        spec: the spec.
        x: the activation [..., cols].
        operands: the tensors of `apply`, by name.
        attributes: the numbers of `apply`, by name.
        training: the mode.
        seed: the seed of the draws.
        handed: what becomes of a tensor that one leg hands on to the next.
    """
    stream = 0
    for number, stretch in enumerate(stretches_of(spec)):
        if number:
            x = handed(x)
        given = operands
        dims, columns = x.dim(), stretch.layout.columns
        for step in stretch.steps:
            if x.dim() < dims:  # the columns are gone, also from what holds one value a row
                given = {n: t.squeeze(columns) if t.dim() == dims else t for n, t in given.items()}
                dims, columns = x.dim(), ()
            if step.op is not None and step.op.eval_mode == "identity":
                if training:
                    drawn = functools.partial(_drawn, uniform(seed, stream, x.shape).to(x))
                    x = _run_formula(step, x, given, attributes, drawn, columns)
                    stream += 1
            else:
                x = _run_step(spec, step, x, given, attributes, columns, training=training)
    return x


def _run_step(
    spec: Spec,
    step: Step,
    x: Tensor,
    operands: Mapping[str, Tensor],
    attributes: Mapping[str, float],
    columns: tuple[int, ...],
    *,
    training: bool,
) -> Tensor:
    """Return the value of a step that draws nothing."""
    if step.op is None:
        assert step.formula is not None
        given = {"x": x, **operands, **_numbers(attributes, x)}
        found: Tensor = evaluate(_sized(step.formula, x, columns), given, _no_draws, columns)
        return found
    if step.op.source:
        bias = operands.get(f"{step.label}_bias")
        return x if bias is None else x + bias.reshape(-1, *[1] * max(spec.dims - 2, 0))
    if step.halves:
        x, second = x.chunk(2, spec.halved)
        given = {**operands, SECOND: second}
        return _run_formula(step, x, given, attributes, _no_draws, columns)
    call = torch_call(step.op, _attributes(step, attributes), training=training)
    if call is None or (step.op.coarse and x.is_cuda and x.dtype == torch.float64):
        return _run_formula(step, x, operands, attributes, _no_draws, columns)
    return call(x, [_operand(step, n, operands, attributes) for n in step.op.operands])


def _sized(formula: sp.Expr, x: Tensor, columns: tuple[int, ...]) -> sp.Expr:
    cols = math.prod(x.shape[dim] for dim in columns) if x.dim() else 1
    rows = x.numel() // max(cols, 1)
    return formula.xreplace({atoms.COLS: sp.Integer(cols), atoms.ROWS: sp.Integer(rows)})


def _run_formula(
    step: Step,
    x: Tensor,
    operands: Mapping[str, Tensor],
    attributes: Mapping[str, float],
    draws: Callable[[int], Tensor],
    columns: tuple[int, ...],
) -> Tensor:
    """Return an op's value by its own formula."""
    assert step.op is not None
    names = {name: sp.Symbol(name, real=True) for name in step.op.operands}
    expr = ops.call(step.op, sp.Symbol("x", real=True), names, _attributes(step, attributes))
    given = {
        name: torch.as_tensor(_operand(step, name, operands, attributes)).to(x) for name in names
    }
    if step.op.classes:
        given[step.op.classes] = one_a_row(given[step.op.classes], x, columns)
        given[str(atoms.COLUMN)] = column_numbers(x, columns)
    result: Tensor = evaluate(_sized(expr, x, columns), {"x": x, **given}, draws, columns)
    return result


def one_a_row(held: Tensor, x: Tensor, columns: tuple[int, ...]) -> Tensor:
    """Return what holds one number a row, in x's shape without its columns, so that it broadcasts with x."""
    sizes = dict(enumerate(x.shape, -x.dim()))
    return held.reshape([1 if dim in columns else size for dim, size in sizes.items()])


def column_numbers(x: Tensor, columns: tuple[int, ...]) -> Tensor:
    """Return the number of each column, so that it broadcasts with x."""
    sizes = [x.shape[dim] for dim in columns]
    numbers = torch.arange(math.prod(sizes), device=x.device).to(x.dtype)
    return numbers.reshape(*sizes, *[1] * (-1 - columns[-1]))


def _operand(
    step: Step, name: str, operands: Mapping[str, Tensor], attributes: Mapping[str, float]
) -> Given:
    value = Ref(SECOND, is_argument=False) if name == step.halves else step.operand(name)
    if isinstance(value, Ref):
        return attributes[value.name] if value.is_argument else operands[value.name]
    return value


def _attributes(step: Step, attributes: Mapping[str, float]) -> dict[str, Any]:
    return {
        name: attributes[value.name] if isinstance(value, Ref) else value
        for name, value in step.attributes.items()
    }


def _numbers(attributes: Mapping[str, float], x: Tensor) -> dict[str, Tensor]:
    return {
        name: torch.tensor(value, dtype=x.dtype, device=x.device)
        for name, value in attributes.items()
    }


# A comparison draws the same numbers twice, and they take as long as the rest.
@functools.lru_cache(maxsize=2)
def uniform(seed: int, stream: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Return the kernels' uniform numbers in [0, 1), float64, not to be changed: Philox4x32-7 in integer
    arithmetic.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the same as
    templates/include/fusegen/random.h.
    """
    mask = 0xFFFFFFFF
    count = math.prod(shape)
    group = torch.arange((count + 7) // 8, dtype=torch.int64)
    c = [group & mask, group >> 32, torch.full_like(group, stream), torch.zeros_like(group)]
    k = [seed & mask, (seed >> 32) & mask]

    def product(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
        # 32 x 32 -> 64 bits by 16-bit halves, since int64 has no unsigned product.
        low, high = constant * (word & 0xFFFF), constant * (word >> 16)
        carried = (low >> 16) + (high & mask)
        return ((high >> 32) << 16) + (carried >> 16) & mask, ((carried & 0xFFFF) << 16) | (
            low & 0xFFFF
        )

    for _ in range(7):
        high0, low0 = product(0xD2511F53, c[0])
        high1, low1 = product(0xCD9E8D57, c[2])
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    halves = torch.stack([half for word in c for half in (word & 0xFFFF, word >> 16)], dim=1)
    return (halves.reshape(-1)[:count].double() * 2.0**-16).reshape(shape)


def random_operands(chain: Chain, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return random operands for `x`, by name: all in [0.5, 1.5), as variances are positive; classes are
    columns."""
    found: dict[str, Tensor] = {}
    for leg, reached in zip(chain.legs, chain.reached(x.shape), strict=True):
        for operand in leg.operands:
            if operand.name in found:
                continue
            shape = operand.shape(reached, leg.layout)
            if operand.integer:
                half = leg.layout.half(reached)
                classes = math.prod(half[dim] for dim in leg.layout.columns)
                drawn = torch.randint(max(classes, 1), shape, generator=generator)
                found[operand.name] = drawn.to(x.device)
            else:
                drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
                found[operand.name] = drawn.add(0.5).to(x)
    return found
