"""The calls to time for a group: every variant, on random data of the group's dtype and shape."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusegen.base.errors import UserError
from fusegen.chain import Chain, Chains
from fusegen.runtime.loading import load_package
from fusegen.toolchain import pipeline
from fusegen.tools.bench import compiling, plain
from fusegen.tools.bench.cells import Group
from fusegen.tools.bench.spared import spared_bytes
from fusegen.tools.bench.timing import Prepare, sets_beyond_caches
from fusegen.tools.check.compare import Values, each, function_of
from fusegen.tools.check.random_operands import random_operands

#: A value or its derivative, as a function of the tensors of a `Set`.
Function = Callable[..., Values]


@dataclass(frozen=True)
class Choice:
    """The device and variants of a run.

    Args:
        device: "cuda" or "cpu".
        out: the folder of the generated packages.
        modes: the modes of torch.compile, by label; see `compiling.MODES`.
    """

    device: str
    out: Path
    modes: Mapping[str, str | None]


@dataclass(frozen=True)
class Set:
    """The tensors of one call.

    Args:
        given: x and the operands.
        moving: the tensors with gradients: x, and operands or parameters.
        cotangent: the gradient of the result.
        out: the target of the copy.
        linear: the tensors with gradients if only the linear of a model is timed.
        further: the gradients of further results.
        spared: the bytes that a backward pass need not move (`spared.py`).
    """

    given: tuple[Tensor, ...]
    moving: tuple[Tensor, ...]
    cotangent: Tensor
    out: Tensor
    linear: tuple[Tensor, ...] = ()
    further: tuple[Tensor, ...] = ()
    spared: int = 0

    @property
    def cotangents(self) -> tuple[Tensor, ...]:
        """The gradients of all results that have one."""
        return (self.cotangent, *self.further)

    def bytes_moved(self, direction: str) -> int:
        """Return the bytes that a tail must move: each tensor that it reads or writes, once, but for those
        that its backward pass need not move."""
        read = sum(t.nbytes for t in self.given)
        results = sum(t.nbytes for t in self.cotangents)
        if direction == "forward":
            return read + results
        return read + results + sum(t.nbytes for t in self.moving) - self.spared


class Subject:
    """A group's functions by variant, and the sets of tensors that they use in turn."""

    def __init__(self, functions: Mapping[str, Function], sets: list[Set]) -> None:
        self._functions, self._sets = functions, itertools.cycle(sets)
        self._linear = functions.get("linear")
        self.example = sets[0]

    def calls(self, direction: str, *, compiled_alone: bool = False) -> dict[str, Prepare]:
        """Return, for each variant and the copy, a function that prepares its calls.

        Args:
            direction: see `Cell`.
            compiled_alone: keep only the variants under torch.compile.
        """
        preparations = {
            "forward": self._forward,
            "backward": self._backward,
            "forward+backward": self._both,
        }
        found = {
            label: preparations[direction](function)
            for label, function in self._functions.items()
            if label in compiling.MODES or not compiled_alone
        }
        return found if compiled_alone else {**found, "copy": self._copy}

    def _forward(self, function: Function) -> Prepare:
        def prepare() -> Callable[[], object]:
            given = next(self._sets).given
            return lambda: function(*given)

        return prepare

    def _backward(self, function: Function) -> Prepare:
        def prepare() -> Callable[[], object]:
            tensors = next(self._sets)
            values = _smooth(function(*(_kept(tensor) for tensor in tensors.given)))
            return lambda: torch.autograd.grad(values, tensors.moving, tensors.cotangents)

        return prepare

    def _both(self, function: Function) -> Prepare:
        def prepare() -> Callable[[], object]:
            tensors = next(self._sets)
            moving = tensors.linear if function is self._linear else tensors.moving
            return lambda: torch.autograd.grad(
                _smooth(function(*tensors.given)), moving, tensors.cotangents
            )

        return prepare

    def _copy(self) -> Callable[[], object]:
        tensors = next(self._sets)
        source = (
            tensors.given[0] if tensors.given[0].shape == tensors.out.shape else tensors.cotangent
        )
        return lambda: tensors.out.copy_(source)


def _smooth(values: Values) -> list[Tensor]:
    """Return the values that have a gradient: numbers of columns have none."""
    return [value for value in each(values) if value.requires_grad]


def _kept(tensor: Tensor) -> Tensor:
    """Return a tensor that later calls leave as it is: running averages are updated in place by each call."""
    averaged = tensor.dim() == 1 and tensor.is_floating_point() and not tensor.requires_grad
    return tensor.clone() if averaged else tensor


def subject(group: Group, choice: Choice, *, compiled_alone: bool = False) -> Subject:
    """Return what is timed of a group.

    Args:
        group: the group.
        choice: what the run measures.
        compiled_alone: only variants under torch.compile will be called, so a tail's package need not be
            built.

    Raises:
        SpecError: if its spec is wrong.
        UserError: if it has no gradient.
        ImportError: if its package is not built.
    """
    found = _derived(group.spec, group.spec.read_text()).fused
    chain = next(chain for chain in found if chain.spec.number == group.number)
    if not chain.spec.order:
        raise UserError(f"{group.spec}: it has order: 0, and so no backward to time")
    if chain.spec.steps[-1].indexes and not chain.spec.outputs:
        raise UserError(
            f"{group.spec}: it returns numbers of columns, which have no backward to time"
        )
    needed = group.kind == "model" or not compiled_alone
    package = load_package(group.spec.stem, choice.out) if needed else None
    torch.manual_seed(0)
    make = _tail if group.kind == "tail" else _model
    return make(group, choice, chain, package)


@functools.lru_cache(maxsize=1)  # the groups of a spec follow one another
def _derived(path: Path, _text: str) -> Chains:
    return pipeline.derive_all(path)


def tensor_dtype(group: Group) -> torch.dtype:
    """Return the dtype of a group's tensors."""
    found: torch.dtype = getattr(torch, "float32" if group.dtype == "tf32" else group.dtype)
    return found


def _tail(group: Group, choice: Choice, chain: Chain, package: Any) -> Subject:
    numbers = {
        a.name: float(a.default) if isinstance(a.default, int | float) else 1.5
        for a in chain.spec.arguments
        if a.type == "float"
    }
    options: dict[str, Any] = {name: numbers[name] for name in chain.attributes}
    if chain.moded:
        options["training"] = True

    def ours(x: Tensor, *operands: Tensor) -> Values:
        return function_of(package, chain)(x, *operands, **options)

    by_hand = plain.tail(chain, numbers)
    functions = {"fusegen": ours, "eager": by_hand, **_compiled(by_hand, choice)}
    generator = torch.Generator().manual_seed(0)

    def tensors() -> Set:
        x = _randn(group, choice, group.rows, group.cols, *group.trailing)
        operands = [*random_operands(chain, x, generator).values()]
        trained = [o.differentiable for o in chain.operands]
        moving = [x, *(t for t, moves in zip(operands, trained, strict=True) if moves)]
        for tensor in moving:
            tensor.requires_grad_()
        values = _smooth(by_hand(x, *operands))
        cotangent, *further = [torch.randn_like(value) for value in values]
        out = torch.empty_like(x, requires_grad=False)
        spared = spared_bytes(chain, x.nbytes)
        return Set((x, *operands), tuple(moving), cotangent, out, (), tuple(further), spared)

    return _subject(functions, tensors, choice)


def _model(group: Group, choice: Choice, chain: Chain, package: Any) -> Subject:
    assert group.in_features is not None and chain.source is not None
    with torch.device(
        choice.device
    ):  # drawn on the device: a large weight would take the CPU a minute
        fused: nn.Module = package.Module(in_features=group.in_features, out_features=group.cols)
    fused = fused.to(tensor_dtype(group))
    by_hand = plain.Model(chain, fused)
    linear = fused.get_submodule(chain.source.label)

    def linear_alone(x: Tensor, *inputs: Tensor) -> Tensor:
        del inputs
        result: Tensor = linear(x)
        return result

    functions: dict[str, Function] = {
        "fusegen": fused,
        "eager": by_hand,
        **_compiled(by_hand, choice),
        "linear": linear_alone,
    }
    generator = torch.Generator().manual_seed(0)
    parameters = tuple(fused.parameters())

    def tensors() -> Set:
        assert group.in_features is not None
        x = _randn(group, choice, group.rows, group.in_features)
        product = _randn(group, choice, group.rows, group.cols)
        (result,) = chain.output_shapes(product.shape).values()
        cotangent = _randn(group, choice, *result)
        drawn = random_operands(chain, product, generator)
        inputs = [drawn[o.name] for o in chain.operands if not o.owner]
        for tensor in (x, *inputs):
            tensor.requires_grad_()
        given = (x, *inputs)
        return Set(
            given,
            (*given, *parameters),
            cotangent,
            torch.empty_like(cotangent),
            linear=(x, *linear.parameters()),
        )

    return _subject(functions, tensors, choice)


def _subject(
    functions: Mapping[str, Function], tensors: Callable[[], Set], choice: Choice
) -> Subject:
    sets = [tensors()]
    count = sets_beyond_caches(choice.device, sets[0].bytes_moved("backward"))
    return Subject(functions, sets + [tensors() for _ in range(count - 1)])


def _compiled(function: Function, choice: Choice) -> dict[str, Function]:
    return {label: compiling.compiled(function, mode) for label, mode in choice.modes.items()}


def _randn(group: Group, choice: Choice, *shape: int) -> Tensor:
    return torch.randn(shape, device=choice.device, dtype=tensor_dtype(group))
