"""A program's Module: what it is called with, and the same by torch's own product and the reference."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusegen.chain import Chain
from random_programs import reference
from random_programs.calls import Case, classes
from random_programs.program import Program

Function = Callable[[dict[str, Tensor]], Tensor]
#: What a product starts from, by dims of it; that of a convolution has three channels.
_INPUTS = {0: (7, 5), 3: (2, 3, 7), 4: (2, 3, 5, 6), 5: (1, 3, 4, 5, 3)}


def module_case(
    program: Program, chain: Chain, package: ModuleType, *, training: bool
) -> tuple[Case, Function, Callable[..., Tensor]] | None:
    """Return a call of the Module, itself as a function of tensors, and the same by torch; None for dropout.

    The tensors are its inputs by their names, and its parameters and buffers by theirs.

    Args:
        program: the program.
        chain: what is derived from it.
        package: the built package.
        training: the mode.
    """
    if training and chain.random:
        return None  # it draws its seed from torch
    made: nn.Module = package.Module(**program.numbers).double().train(training)
    generator = torch.Generator().manual_seed(program.seed)
    inputs = _inputs(program, chain, made, generator)
    if inputs is None:
        return None
    held = {}
    for name, tensor in (*made.named_parameters(), *made.named_buffers()):
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            held[name] = drawn.abs() + 0.5 if "running_var" in name else drawn
    tensors = inputs | held
    buffers = {n for n, _ in made.named_buffers()}
    moving = tuple(n for n, t in tensors.items() if t.is_floating_point() and n not in buffers)
    moving = tuple(n for n in moving if n not in _constant(chain))
    label = "module" + (", training" if training else "")
    rest = {n: t for n, t in tensors.items() if n != "x"}
    case = Case(
        label, tensors["x"], rest, dict(program.numbers), training, program.seed, moving=moving
    )

    def ours(given: dict[str, Tensor]) -> Tensor:
        state = {n: given[n].clone() if n in buffers else given[n] for n in held}
        called = {n: given[n] for n in inputs}
        result: Tensor = torch.func.functional_call(made, state, kwargs=called)
        return result

    def wanted(
        given: dict[str, Tensor],
        hand: reference.Hand = lambda _, value: value,
        written_out: bool = False,
    ) -> Tensor:
        operands = {}
        for operand in chain.operands:
            name = operand.owner or ("x" if operand.name == "input" else operand.name)
            operands[operand.name] = given[name]
        x = _product(program, chain, given)
        call = reference.Call(operands, program.numbers, training, 0, written_out=written_out)
        return reference.run(program.document, x, call, hand)

    return case, ours, wanted


def _constant(chain: Chain) -> set[str]:
    return {o.name for o in chain.operands if not o.differentiable}


def _inputs(
    program: Program, chain: Chain, made: nn.Module, generator: torch.Generator
) -> dict[str, Tensor] | None:
    """Return what the Module's forward takes, by name."""
    if chain.source is None:
        shape: tuple[int, ...] = program.shape
    elif chain.source.op is not None and chain.source.op.name == "bmm":
        shape = (program.shape[0], program.shape[1], 6)
    else:
        shape = _INPUTS[program.document.get("dims", 0)]
    found = {"x": torch.randn(shape, generator=generator, dtype=torch.float64)}
    if chain.source is not None and chain.source.op is not None and chain.source.op.inputs:
        size = (shape[0], 6, program.shape[2])
        found["mat2"] = torch.randn(size, generator=generator, dtype=torch.float64)
    weights = {n: p for n, p in made.named_parameters() if n.endswith(".weight")}
    product = _product(program, chain, {**weights, **found})
    for segment, reached in zip(chain.segments, chain.reached(product.shape), strict=True):
        for operand in segment.operands:
            if operand.handed or operand.owner or operand.name in {*found, "input"}:
                continue
            size = operand.shape(reached, segment.layout)
            if operand.integer:
                count = classes(segment, reached, operand.name)
                found[operand.name] = torch.randint(count, size, generator=generator)
                continue
            drawn = torch.randn(size, generator=generator, dtype=torch.float64)
            positive = operand.name in program.positive
            found[operand.name] = drawn.abs() + 0.5 if positive else drawn
    known = inspect.signature(made.forward).parameters
    return found if set(found) == set(known) else None


def _product(program: Program, chain: Chain, given: dict[str, Tensor]) -> Tensor:
    """Return what the chain starts from: torch's product without its bias."""
    source = chain.source
    if source is None or source.op is None:
        return given["x"]
    if source.op.name == "bmm":
        return torch.bmm(given["x"], given["mat2"])
    step = program.document["chain"][0][source.op.name]
    keys = ("stride", "padding", "dilation")
    sizes = {name: step[name] for name in keys if name in step}
    function = getattr(F, source.op.name)
    result: Tensor = function(given["x"], given[f"{source.label}.weight"], **sizes)
    return result
