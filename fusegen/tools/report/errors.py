"""The errors of a built package beside those of torch's own functions, against float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusegen.base import stamp
from fusegen.chain import Chain
from fusegen.runtime.loading import load_package
from fusegen.tools.check.compare import Comparison, Values, function_of, make_case, one_thread
from fusegen.tools.check.every_number import every, sizes, ulps
from fusegen.tools.check.reference import run_chain
from fusegen.tools.report.one_variable import numbers_of, with_derivatives

__all__ = ["ErrorRow", "EveryNumber", "NotMeasured", "errors_at_every_number", "errors_of_a_call"]

#: The shape of the random call, roughly: rows and columns.
_SHAPE = (33, 257)
#: An error that is hardly more than the rounding of the result, in ulp.
ALMOST_HALF = 0.51


class NotMeasured(Exception):  # noqa: N818
    """Errors cannot be measured here; the message says why."""


@dataclass(frozen=True)
class EveryNumber:
    """The errors of a function at all finite numbers of bfloat16.

    Args:
        name: the function: "value" or "derivative".
        x: the numbers, from the least to the largest.
        own: the package's errors, in ulp.
        eager: those of torch's own functions, one after another.
    """

    name: str
    x: Tensor
    own: Tensor
    eager: Tensor

    def largest(self, errors: Tensor) -> str:
        """Return the largest error, and the number where it is."""
        place = int(errors.argmax())
        return f"{float(errors[place]):.3g} ulp at {float(self.x[place]):.3g}"

    def share(self, errors: Tensor) -> str:
        """Return how many of the errors are hardly more than that of rounding the result."""
        return f"{100 * float((errors <= ALMOST_HALF).double().mean()):.1f} %"


@dataclass(frozen=True)
class ErrorRow:
    """The largest errors of one result of a random call, in units of what rounding may cost.

    Args:
        dtype: the dtype.
        name: the result.
        own: the package's error.
        eager: that of torch's own functions, one after another.
    """

    dtype: str
    name: str
    own: float
    eager: float


def errors_at_every_number(chain: Chain, out: Path) -> list[EveryNumber]:
    """Return the errors of a chain of one variable and of its first derivative.

    Args:
        chain: the chain.
        out: the folder of the built packages.

    Raises:
        NotMeasured: the package is not built, or not for bfloat16 on the CPU.
    """
    package, dtypes = _package(chain, out)
    if "bfloat16" not in dtypes:
        raise NotMeasured("the package is built without bfloat16")
    numbers = numbers_of(chain)
    x = every(torch.bfloat16)
    x = x[x.isfinite()].sort().values
    order = min(chain.spec.order, 1)
    truths = with_derivatives(chain, x.double(), order)
    near = [with_derivatives(chain, x.double() * factor, order) for factor in (0.7, 1.4)]
    own = _value_and_derivative(lambda leaf: function_of(package, chain)(leaf, **numbers), x, order)
    eager = _value_and_derivative(lambda leaf: run_chain(chain.spec, leaf, {}, numbers), x, order)
    return [
        EveryNumber(name, x, ulps(got, truth, size), ulps(theirs, truth, size))
        for name, got, theirs, truth, size in zip(
            ("value", "derivative"),
            own,
            eager,
            truths,
            [sizes(truth, *around) for truth, *around in zip(truths, *near, strict=True)],
            strict=False,
        )
    ]


def errors_of_a_call(chain: Chain, out: Path) -> list[ErrorRow]:
    """Return the errors of the outputs and gradients of a random call in bfloat16 and float32.

    Args:
        chain: any chain.
        out: the folder of the built packages.

    Raises:
        NotMeasured: the package is not built for the CPU, or has no derivative.
    """
    if not chain.spec.order:
        raise NotMeasured("the spec has order: 0, and errors are measured with gradients")
    package, dtypes = _package(chain, out)
    rows: list[ErrorRow] = []
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        if name not in dtypes:
            continue
        training = chain.moded
        case = make_case(chain, chain.example_shape(*_SHAPE), training=training)
        comparison = Comparison(chain, case, dtype)
        numbers = {n: v for n, v in case.options.items() if n not in ("training", "seed")}

        def ours(x: Tensor, operands: dict[str, Tensor]) -> Values:
            return function_of(package, chain)(x, **operands, **case.options)  # noqa: B023

        def eager(x: Tensor, operands: dict[str, Tensor]) -> Values:
            options: Any = {"training": training, "seed": case.seed}  # noqa: B023
            return run_chain(chain.spec, x, operands, numbers, **options)  # noqa: B023

        with one_thread():
            found, theirs = comparison.results(ours), comparison.results(eager)
            truths, spreads = comparison.truth(), comparison.spread()
        rows += _rows(comparison, name, found, theirs, truths, spreads)
    if not rows:
        raise NotMeasured("the package is built for neither bfloat16 nor float32")
    return rows


def _rows(
    comparison: Comparison,
    dtype: str,
    found: Sequence[Tensor],
    theirs: Sequence[Tensor],
    truths: Sequence[Tensor],
    spreads: Sequence[Tensor],
) -> list[ErrorRow]:
    results = zip(comparison.names, found, theirs, truths, spreads, strict=True)
    return [
        ErrorRow(
            dtype,
            name,
            comparison.error(name, got, truth, spread).units,
            comparison.error(name, other.to(got.dtype), truth, spread).units,
        )
        for name, got, other, truth, spread in results
    ]


def _package(chain: Chain, out: Path) -> tuple[Any, tuple[str, ...]]:
    """Return the built package, and the dtypes that it is built for.

    Raises:
        NotMeasured: it is not built.
    """
    try:
        package = load_package(chain.spec.name, out)
    except ImportError as error:
        raise NotMeasured(str(error)) from error
    return package, _dtypes(chain.spec.name, out)


def _dtypes(name: str, out: Path) -> tuple[str, ...]:
    """Return the dtypes that a package is compiled for."""
    return tuple(stamp.read(out / name / "_cpu.so").dtypes[name])


def _value_and_derivative(function: Any, x: Tensor, order: int) -> list[Tensor]:
    leaf = x.detach().clone()[:, None].requires_grad_(order > 0)
    value = function(leaf)
    found = [value.detach()[:, 0]]
    if order:
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
        else:
            slope = torch.zeros_like(leaf)
        found.append(slope[:, 0])
    return found
