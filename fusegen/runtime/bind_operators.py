"""Binds the operators that a package declares to those that torch has, each to its derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusegen.runtime.declared_operator import Operator
from fusegen.runtime.operators import BoundOperator


def bind_operators(
    package: str,
    namespace: Any,
    declared: Sequence[Operator],
    kinds: Sequence[str | tuple[int, ...]],
    *,
    float32: Sequence[bool],
    statistics: tuple[str, ...],
    random: bool,
    columns: tuple[int, int],
    grouped: bool,
    halved: int = 0,
    partition: tuple[int, bool] = (2, False),
) -> tuple[BoundOperator, ...]:
    """Return the operators of a mode, each with its derivative.

    Args:
        package: the package's name.
        namespace: the namespace of the operators, `torch.ops.fusegen_<package>_<hash>`.
        declared: the operators, as the generated package declares them.
        kinds: the kinds of x and of the operands: words, or the dims along which one varies.
        float32: whether each of them is of float32 where x has 16 bits.
        statistics: the kinds of the statistics that the forward saves.
        random: whether the mode draws random numbers.
        columns: the first and the last dim along which a row runs, counted from the end.
        grouped: whether a row is only one of several groups that these dims are cut into.
        halved: the dim along which x has two halves or more parts, counted from the end; 0 where it has none.
        partition: how many parts there are, and whether the columns of the first two alternate.
    """
    bound: list[BoundOperator] = []
    taken, wide = tuple(kinds), tuple(float32)
    for order, said in enumerate(declared):
        overload = getattr(namespace, said.name).default
        value = getattr(namespace, f"{said.name}_value").default if said.value else None
        made = BoundOperator(
            package=package,
            order=order,
            overload=overload,
            value=value,
            declared=said,
            kinds=taken,
            float32=wide,
            statistic_kinds=statistics,
            random=random,
            columns=columns,
            grouped=grouped,
            outlines=declared[0].outlines,
            halved=halved,
            partition=partition,
        )
        if bound:
            bound[-1].differentiate_by(made)
        bound.append(made)
        taken += made.output_kinds
        wide += made.float32
    return tuple(bound)
