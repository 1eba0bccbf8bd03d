"""Compares a built package's value and gradients in one call with the reference, element by element."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.tools.check.condition import MORE_RUNS, RUNS, Worst, spreads, worst
from fusegen.tools.check.random_operands import random_operands
from fusegen.tools.check.reference import run_chain
from fusegen.tools.check.reference_chain import run_programs
from fusegen.tools.check.rounding import EXACT, Rounding

#: The largest allowed error, in units of `condition.py`. In 16 bits half a unit is the rounding of the
#: result. In float32, functions have errors of up to 4 ulp (`elementary.h`), of which a unit includes half an
#: ulp each. In float64 the reference, torch's functions, is no more exact than the kernels. Vectors also have
#: half as many lanes: a sum of 2048 terms, many of them equal, is off by up to 30 ulp.
BOUND = {torch.float64: 16.0, torch.float32: 2.0, torch.bfloat16: 1.0, torch.float16: 1.0}


#: What a chain returns: its value, or its outputs.
Values = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """A call of a chain: its tensors, in float64, and the options of `apply`.

    Args:
        x: the activation [..., cols].
        operands: the chain's operands, by name.
        options: the keyword arguments of `apply`.
        seed: the seed, for chains that draw random numbers.
    """

    x: Tensor
    operands: dict[str, Tensor]
    options: dict[str, Any]
    seed: int


def make_case(
    derived: Chain,
    shape: Sequence[int],
    *,
    training: bool,
    seed: int = 0,
    device: str = "cpu",
) -> Case:
    """Return a random call: x from a normal distribution, operands in [0.5, 1.5)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    operands = {n: t.to(device) for n, t in random_operands(derived, x, generator).items()}
    options: dict[str, Any] = {
        a.name: a.default if a.default is not None else 1.5
        for a in derived.spec.arguments
        if a.name in derived.attributes
    }
    for groups in derived.groups:  # two or more values of two or more channels, if possible
        channels = derived.layout.half(shape)[1]
        options[groups] = next((n for n in range(2, channels) if channels % n == 0), 1)
    if derived.moded:
        options["training"] = training
    if derived.random:
        options["seed"] = 1234 + seed
    return Case(x.to(device), operands, options, 1234 + seed)


def gradients(
    function: Callable[..., Values], tensors: Sequence[Tensor], seed: int
) -> list[Tensor]:
    """Return the values at `tensors` and their gradients there for random cotangents."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    values = each(function(*leaves))
    generator = torch.Generator().manual_seed(seed)
    cotangents = []
    for value in values:
        drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.device)
        # The same cotangent in every dtype: it has bfloat16's digits, and near 0 float16's subnormal numbers.
        cotangents.append(drawn.bfloat16().half().to(value.dtype))
    moving = [(v, c) for v, c in zip(values, cotangents, strict=True) if v.requires_grad]
    found: Sequence[Tensor] = [torch.zeros_like(leaf) for leaf in leaves]
    if moving:
        outputs, along = zip(*moving, strict=True)
        found = torch.autograd.grad(outputs, leaves, along, materialize_grads=True)
    return [*(_as_float(value.detach()) for value in values), *found]


def _as_float(value: Tensor) -> Tensor:
    """Return numbers of columns in float64, so that they are compared like other values."""
    return value if value.is_floating_point() else value.double()


def each(values: Values) -> tuple[Tensor, ...]:
    """Return a chain's value, or its outputs, as a tuple."""
    return (values,) if isinstance(values, Tensor) else tuple(values)


def function_of(package: Any, derived: Chain) -> Callable[..., Values]:
    """Return a chain's function in its package."""
    function: Callable[..., Values] = getattr(package, derived.spec.function)
    return function


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Make torch use one thread: on a busy machine each of many short operations would wait for other
    threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


@dataclass(frozen=True)
class Error:
    """The error of a result, and the largest allowed error, in units of `condition.py`.

    Args:
        name: the result.
        worst: its element with the largest error.
        bound: the largest allowed error.
        given: the input at the same place: the name of a tensor of the result's shape, and its element.
    """

    name: str
    worst: Worst
    bound: float
    given: str

    @property
    def units(self) -> float:
        """The error of the worst element, in units."""
        return self.worst.units

    @property
    def within(self) -> bool:
        """Whether the error is within the bound."""
        return self.units <= self.bound

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.worst.index))}]" if self.worst.index else ""
        at = f" at {self.given}" if self.given else ""
        value = f"{self.worst.got:.9g}, not {self.worst.truth:.9g}"
        return f"{self.units:.2f} units of {self.bound:g} in {self.name}{place}{at}: {value}"


@dataclass(frozen=True)
class Comparison:
    """One call of a chain in one dtype: the reference, the possible rounding error, and the actual error.

    Args:
        chain: the chain.
        case: the call.
        dtype: the dtype; the reference starts from tensors rounded to it.
    """

    chain: Chain
    case: Case
    dtype: torch.dtype

    @property
    def moving(self) -> list[str]:
        """The tensors with a gradient, in the order of the results."""
        return ["x", *(o.name for o in self.chain.operands if o.differentiable)]

    @property
    def names(self) -> list[str]:
        """The names of the results: the outputs and the gradients."""
        return [*self.outputs, *(f"grad_{name}" for name in self.moving)]

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return [f"output {label}" for label in self.chain.spec.outputs] or ["output"]

    @property
    def given(self) -> dict[str, Tensor]:
        """The tensors, rounded to the dtype."""
        tensors = {"x": self.case.x, **self.case.operands}
        return {name: _cast(tensor, self.dtype_of(name)) for name, tensor in tensors.items()}

    def dtype_of(self, name: str) -> torch.dtype:
        """Return the dtype of one of the tensors."""
        wide = any(o.float32 for o in self.chain.operands if o.name == name)
        return torch.promote_types(self.dtype, torch.float32) if wide else self.dtype

    def results(
        self,
        function: Callable[[Tensor, dict[str, Tensor]], Values],
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """Return a function's values and gradients for the rounded tensors, in a dtype or in their own."""
        start = {name: _cast(tensor, dtype or tensor.dtype) for name, tensor in self.given.items()}
        moving = self.moving

        def of_leaves(*leaves: Tensor) -> Values:
            bound = {n: t.clone() for n, t in start.items()} | dict(
                zip(moving, leaves, strict=True)
            )
            return function(bound.pop("x"), bound)

        return gradients(of_leaves, [start[n] for n in moving], self.case.seed)

    def programs(self, rounding: Rounding) -> list[Tensor]:
        """Return the results of the chain's own programs in float64."""
        chain, case = self.chain, self.case

        def run(x: Tensor, operands: dict[str, Tensor]) -> Values:
            return run_programs(
                chain,
                x,
                operands,
                self._numbers,
                training=self._training,
                seed=case.seed,
                rounding=rounding,
            )

        return self.results(run, torch.float64)

    def truth(self) -> list[Tensor]:
        """Return the results of torch's own functions in float64.

        For float64 torch's finite results are not exact enough: its derivative of tanh, 1 - tanh(x)^2,
        cancels. They are replaced by those of the chain's own programs.
        """

        def run(x: Tensor, operands: dict[str, Tensor]) -> Values:
            return run_chain(
                self.chain.spec,
                x,
                operands,
                self._numbers,
                training=self._training,
                seed=self.case.seed,
            )

        found = self.results(run, torch.float64)
        if self.dtype != torch.float64:
            return found
        own = self.programs(EXACT)
        return [
            torch.where(a.isfinite() & b.isfinite(), b, a) for a, b in zip(found, own, strict=True)
        ]

    def spread(self, runs: int = RUNS) -> list[Tensor]:
        """Return the standard deviation of each result under rounding, from `runs` runs (`condition.py`)."""
        precise = bool(self.chain.spec.float32)
        return spreads(self.programs, self.dtype, seed=self.case.seed, runs=runs, precise=precise)

    def error(self, name: str, got: Tensor, truth: Tensor, spread: Tensor) -> Error:
        """Return the error of one result."""
        element = worst(got, truth, spread)
        source = name.removeprefix("grad_") if name.startswith("grad_") else "x"
        tensor = self.given[source]
        beside = tensor.shape == truth.shape and element.units > 0
        given = f"{source} = {float(tensor[element.index]):.9g}" if beside else ""
        return Error(name, element, BOUND[got.dtype], given)

    @property
    def _numbers(self) -> dict[str, Any]:
        known = (*self.chain.attributes, *self.chain.groups)
        return {name: value for name, value in self.case.options.items() if name in known}

    @property
    def _training(self) -> bool:
        return bool(self.case.options.get("training", False))


def compare(package: Any, derived: Chain, case: Case, dtype: torch.dtype) -> list[Error]:
    """Return the errors of a package's outputs and gradients against the float64 reference.

    The outputs are also computed without gradients, by a separate operator.

    Args:
        package: the built package.
        derived: its chain.
        case: the call.
        dtype: the dtype to run the package in.
    """
    comparison = Comparison(derived, case, dtype)

    def ours(x: Tensor, operands: dict[str, Tensor]) -> Values:
        result: Values = function_of(package, derived)(x, **operands, **case.options)
        return result

    found = comparison.results(ours)
    given = comparison.given
    with torch.no_grad():
        alone = [_as_float(value) for value in each(ours(given.pop("x"), given))]
    errors: list[Error] = []
    with one_thread():
        truths = comparison.truth()
        for runs in (RUNS, MORE_RUNS):
            spread = comparison.spread(runs)
            results = [*zip(comparison.names, found, truths, spread, strict=True)]
            results += [
                (f"{name} without gradients", got, truth, width)
                for got, (name, _, truth, width) in zip(alone, results, strict=False)
            ]
            errors = [comparison.error(*result) for result in results]
            if all(error.within for error in errors):
                break
    return errors
