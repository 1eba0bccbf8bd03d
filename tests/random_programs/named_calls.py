"""What a program of named values is called with: its Module, and the same by torch's own functions."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from fusegen.chain import derive_all
from fusegen.spec import parse
from random_programs import reference
from random_programs.calls import Case
from random_programs.program import Program

Results = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class NamedChain:
    """What is known of a program of named values.

    Args:
        wide: its tensors of float32 beside an x of 16 bits.
        wide_results: the results of float32, as "value" or "value 0", and their cotangents.
        indexes: the results of int64.
        between: the places of the steps whose values may be stored, and rounded: all.
        random: whether it draws random numbers.
    """

    wide: frozenset[str]
    wide_results: frozenset[str]
    indexes: frozenset[str]
    between: frozenset[int]
    random: bool = False

    @classmethod
    def of(cls, program: Program) -> NamedChain:
        """Return what is known of a program."""
        document = program.document
        operands = document.get("operands", {})
        outputs = document.get("outputs", [])
        words = {
            given.get("name"): word
            for step in document["chain"]
            if isinstance(step, dict)
            for word, given in step.items()
            if isinstance(given, dict)
        }
        results = {
            (f"value {n}" if len(outputs) > 1 else "value"): entry
            for n, entry in enumerate(outputs)
        }
        wide = frozenset(n for n, entry in results.items() if isinstance(entry, dict))
        indexes = frozenset(
            n
            for n, entry in results.items()
            if isinstance(entry, str) and words.get(entry) in ("argmax", "argmin")
        )
        return cls(
            wide=frozenset(
                n
                for n, o in operands.items()
                if isinstance(o, dict) and o.get("dtype") == "float32"
            ),
            wide_results=wide
            | {f"cotangent{n or ''}" for n, name in enumerate(results) if name in wide},
            indexes=indexes,
            between=frozenset(range(len(document["chain"]))),
            random="dropout" in program.text,
        )


def named_calls(
    program: Program, package: ModuleType
) -> Iterator[tuple[Case, Callable[..., Results], Callable[..., Results]]]:
    """Yield calls of a program's Module, itself as a function of tensors, and the same by torch."""
    made: nn.Module = package.Module(**program.numbers).double()
    streams = _streams(program)
    modes = streams is not None and (streams or any(True for _ in made.buffers()))
    taken = inspect.signature(made.forward).parameters
    buffers = [n for n, t in made.named_buffers() if t.is_floating_point()]
    still = _still(program) | {*buffers}
    rng = random.Random(program.seed)
    scale = rng.choice((1e-3, 30.0, 1e3))
    plans: list[tuple[str, int, dict[str, Any]]] = [
        ("plain", 0, {"twice": program.document.get("order", 2) >= 2}),
        ("strided", 1, {"strides": rng.randrange(10**6)}),
        ("ties", 0, {"exact": True}),
        (f"scale {scale:g}", 0, {}),
    ]
    if modes:
        plans += [(f"{name}, training", place, more) for name, place, more in plans[:2]]
    for label, place, more in plans:
        training = "training" in label
        tensors = _tensors(program, made, place, scale if "scale" in label else 1.0, more)
        moving = tuple(
            n
            for n, t in tensors.items()
            if t.is_floating_point() and n not in still and not n.startswith("mask")
        )
        rest = {n: t for n, t in tensors.items() if n != "x"}
        case = Case(
            label,
            tensors["x"],
            rest,
            dict(program.numbers),
            training,
            program.seed,
            moving=moving,
            **more,
        )

        def ours(given: dict[str, Tensor], training: bool = training) -> Results:
            called = {n: given[n] for n in taken}
            state = {n: t for n, t in given.items() if n not in called}
            averages = {n: state[n].clone() for n in buffers} if training else {}
            with mock.patch("fusegen.runtime.chain.seed_tensor", _fixed(program.seed)):
                made.train(training)
                found: Results = torch.func.functional_call(made, state | averages, kwargs=called)
            return (
                (*found, *averages.values())
                if averages and isinstance(found, tuple)
                else ((found, *averages.values()) if averages else found)
            )

        def wanted(
            given: dict[str, Tensor],
            hand: reference.Hand = lambda _, value: value,
            written_out: bool = case.exact,
            training: bool = training,
        ) -> Results:
            operands = {n.replace(".", "_"): t for n, t in given.items() if n != "x"}
            call = reference.Call(
                operands,
                program.numbers,
                training,
                program.seed,
                streams or {},
                written_out=written_out,
            )
            found = reference.outputs(program.document, given["x"], call, hand)
            if training:
                found = (*found, *(call.moved[n.replace(".", "_")] for n in buffers))
            return found if len(found) > 1 else found[0]

        yield case, ours, wanted


def _still(program: Program) -> set[str]:
    """Return the tensors that get no gradient."""
    operands = program.document.get("operands", {})
    return {n for n, o in operands.items() if isinstance(o, dict) and not o.get("gradient", True)}


def _tensors(
    program: Program, made: nn.Module, place: int, scale: float, more: dict[str, Any]
) -> dict[str, Tensor]:
    """Return the tensors of a call by name: x, the other inputs, and the parameters."""
    generator = torch.Generator().manual_seed(program.seed + 10 * place)
    rng = random.Random(program.seed + place)

    def drawn(shape: tuple[int, ...], factor: float = 1.0) -> Tensor:
        found = torch.randn(tuple(shape), generator=generator, dtype=torch.float64) * factor
        if more.get("exact"):
            return (2 * found).round() / 2 + 0.0
        if more.get("strides") is not None and found.dim() and rng.random() < 0.2:
            dim = rng.randrange(found.dim())  # it may then be expanded
            found = found.narrow(dim, 0, min(1, found.shape[dim])).expand(found.shape).clone()
        return found

    tensors = {"x": drawn(program.shape if place == 0 else program.other, scale)}
    declared = program.document.get("operands", {})
    for name, shapes in (program.tensors or {}).items():
        shape = tuple(shapes[place])
        entry = declared[name] if isinstance(declared[name], dict) else {}
        kind = entry.get("dtype", "")
        if kind == "bool":
            tensors[name] = torch.rand(shape, generator=generator) < 0.4
        elif "int" in kind:
            tensors[name] = torch.randint(shapes[2][place], shape, generator=generator).to(
                getattr(torch, kind)
            )
        else:
            found = drawn(shape)
            tensors[name] = found.abs() + 0.5 if name.endswith("_p") else found
    for name, held in (*made.named_parameters(), *made.named_buffers()):
        if held.is_floating_point():
            found = drawn(tuple(held.shape))
            tensors[name] = found.abs() + 0.5 if name.endswith("running_var") else found
    return tensors


def _streams(program: Program) -> dict[str, int] | None:
    """Return of each step that drops elements its stream in its chain; None if memory decides the order of
    numbers, as where the dims of a row are no neighbours."""
    found: dict[str, int] = {}
    if "dropout" not in program.text:
        return found
    for one in derive_all(parse(program.text, program.name)).fused:
        count = 0
        for segment in one.segments:
            for step in segment.steps:
                if step.op is not None and step.op.eval_mode == "identity":
                    if segment.layout.order:
                        return None
                    found[step.label] = count
                    count += 1
    return found


def _fixed(seed: int) -> Callable[..., Tensor]:
    """Return what draws the seed of every call of kernels: the same number."""
    return lambda _, x: torch.full((1,), seed, dtype=torch.int64, device=x.device)
