"""A failing program made smaller, as long as it fails: steps dropped, attributes left out, formulas cut."""

from __future__ import annotations

import ast
import copy
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from fusegen import chain, spec
from fusegen.base.errors import SpecError
from random_programs.program import Program
from random_programs.shapes import shapes_of

#: Says which of some programs fail, by name.
Failing = Callable[[Mapping[str, Program]], set[str]]
_TOGETHER = 8


def shrink(program: Program, failing: Failing, rounds: int = 30) -> Program:
    """Return a smaller program that fails too.

    Args:
        program: one that fails.
        failing: builds and checks programs; several at a time are faster.
        rounds: how often something may be taken away.
    """
    for _ in range(rounds):
        smaller = _first(program, failing)
        if smaller is None:
            return program
        program = replace(smaller, name=program.name)
    return program


def _first(program: Program, failing: Failing) -> Program | None:
    """Return the first of the smaller programs that fails."""
    candidates = _candidates(program)
    while batch := list(itertools.islice(candidates, _TOGETHER)):
        waiting = {f"{program.name}_s{n}": candidate for n, candidate in enumerate(batch)}
        found = failing({name: replace(c, name=name) for name, c in waiting.items()})
        smaller = next((c for name, c in waiting.items() if name in found), None)
        if smaller is not None:
            return smaller
    return None


def _candidates(program: Program) -> Iterator[Program]:
    """Yield the valid programs that are a little smaller, those that lack most first."""
    seen = {program.text + str(program.shape)}
    for smaller in _smaller(program):
        candidate = _tidied(smaller)
        key = candidate.text + str(candidate.shape)
        if key in seen or not _valid(candidate):
            continue
        seen.add(key)
        yield candidate


def _valid(program: Program) -> bool:
    """Whether the language takes it, and torch if it is of named values; a traceback is no refusal."""
    try:
        chain.derive_all(spec.parse(program.text, program.name))
    except SpecError:
        return False
    except Exception:
        return True
    try:
        return program.tensors is None or all(shapes_of(program, place) for place in range(2))
    except (RuntimeError, ValueError, IndexError, TypeError, KeyError):
        return False


def _smaller(program: Program) -> Iterator[Program]:
    document = program.document
    steps = document["chain"]
    if document.get("order", 2) > 1:
        yield _with(program, order=1)
    for count in range(1, len(steps)):
        yield _with(program, chain=steps[:count])
    for place in range(len(steps)):
        yield _with(program, chain=steps[:place] + steps[place + 1 :])
    for name in document.get("outputs", []):
        yield _with(program, outputs=[n for n in document["outputs"] if n != name])
    for place, step in enumerate(steps):
        for simpler in _simpler(step):
            yield _with(program, chain=[*steps[:place], simpler, *steps[place + 1 :]])
    operands = document.get("operands", {})
    for name, entry in operands.items():
        for simpler in _simpler_operands(entry):
            made = _with(program, operands={**operands, name: simpler})
            if simpler == "scalar" and name in (program.tensors or {}):
                tensors = {**(program.tensors or {}), name: ((), ())}
                made = replace(made, tensors=tensors)
            yield made
    yield from _with_less(program)


def _simpler_operands(entry: Any) -> Iterator[Any]:
    """Yield declarations of an operand with less in them."""
    given = entry if isinstance(entry, dict) else {"kind": entry}
    numbers = given.get("dtype", "float32") == "float32"
    if numbers and given.get("kind") != "scalar" and "init" not in given:
        yield "scalar"
    for key in ("dtype", "gradient"):
        if key in given and numbers:
            left = {k: v for k, v in given.items() if k != key}
            yield left["kind"] if [*left] == ["kind"] else left


def _with_less(program: Program) -> Iterator[Program]:
    """Yield programs of smaller tensors. Named values have the sizes of their own operands: those that are
    as large as a dim of x become smaller with it, and torch says whether they still fit."""
    for dim, size in enumerate(program.shape):
        for less in sorted({1, 2, size // 2} - {0}):
            if less >= size:
                continue
            shape, other = (_resized(s, dim, less) for s in (program.shape, program.other))
            if program.tensors is None:
                yield replace(program, shape=shape, other=other)
                continue
            tensors = {
                n: (tuple(less if k == size else k for k in shapes[0]), *shapes[1:])
                for n, shapes in program.tensors.items()
            }
            yield replace(program, shape=shape, tensors=tensors)


def _with(program: Program, **changed: Any) -> Program:
    """Return a program with other entries in its spec; outputs that no step computes are left out."""
    document = copy.deepcopy({**program.document, **changed})
    given = [s for step in document["chain"] if isinstance(step, dict) for s in step.values()]
    names = [n for s in given if isinstance(s, dict) for n in (s.get("name"), *s.get("parts", ()))]
    outputs = [o for o in document.get("outputs", []) if _named(o) in names]
    last = given[-1].get("name") if given and isinstance(given[-1], dict) else None
    if outputs and last not in map(_named, outputs):
        outputs = [*outputs, last] if last else []
    document["outputs"] = (
        outputs if len(outputs) > 1 or any(isinstance(o, dict) for o in outputs) else []
    )
    return replace(program, document=document)


def _named(output: Any) -> Any:
    return output["name"] if isinstance(output, dict) else output


def _resized(shape: tuple[int, ...], dim: int, size: int) -> tuple[int, ...]:
    return tuple(min(n, size) if d == dim else n for d, n in enumerate(shape))


def _simpler(step: Any) -> Iterator[Any]:
    """Yield a step with one attribute or operand less, or a number in its place, or a shorter formula."""
    if not isinstance(step, dict):
        return
    ((word, given),) = step.items()
    if word == "expr":
        text = given["formula"] if isinstance(given, dict) else given
        for shorter in _shorter(text):
            yield {word: {**given, "formula": shorter} if isinstance(given, dict) else shorter}
        if isinstance(given, dict):
            for key in given:
                left = {k: v for k, v in given.items() if k != key}
                if "formula" in left:
                    yield {word: left if len(left) > 1 else left["formula"]}
        return
    if not isinstance(given, dict):
        return
    for key in given:
        left = {k: v for k, v in given.items() if k != key}
        yield {word: left} if left else word
    for key, value in given.items():
        if isinstance(value, str) and key != "name":
            yield {word: {**given, key: 0.5}}


def _shorter(text: str) -> Iterator[str]:
    """Yield formulas in which a part is one of its own parts, or a number or x."""
    tree = ast.parse(text, mode="eval")
    nodes = [n for n in ast.walk(tree.body) if isinstance(n, ast.expr)]
    for place, node in enumerate(nodes):
        parts = [c for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr)]
        parts = [p for p in parts if not (isinstance(node, ast.Call) and p is node.func)]
        for part in parts:
            if not isinstance(part, ast.Compare):
                yield _replaced(text, place, ast.unparse(part))
        if parts:
            yield _replaced(text, place, "x")


def _replaced(text: str, place: int, part: str) -> str:
    tree = ast.parse(text, mode="eval")
    nodes = [n for n in ast.walk(tree.body) if isinstance(n, ast.expr)]
    old, new = nodes[place], ast.parse(part, mode="eval").body

    class Swap(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            return new if node is old else self.generic_visit(node)

    return ast.unparse(Swap().visit(tree))


def _tidied(program: Program) -> Program:
    """Return a program without operands and arguments that no step uses."""
    document = dict(program.document)
    used = {*re.findall(r"\w+", program.text.split("chain:")[1])}
    for section in ("operands", "arguments"):
        held = {n: v for n, v in document.get(section, {}).items() if n in used}
        document.pop(section, None)
        if held:
            document[section] = held
    keys = ("order", "arguments", "dims", "operands", "outputs", "chain")
    numbers = {n: v for n, v in program.numbers.items() if n in document.get("arguments", {})}
    positive = tuple(n for n in program.positive if n in document.get("operands", {}))
    ordered = {k: document[k] for k in keys if document.get(k)}
    tensors = program.tensors
    if tensors is not None:
        tensors = {n: s for n, s in tensors.items() if n in document.get("operands", {})}
    return replace(program, document=ordered, numbers=numbers, positive=positive, tensors=tensors)
