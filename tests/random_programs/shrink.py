"""A failing program made smaller, as long as it fails: steps dropped, attributes left out, formulas cut."""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from fusegen import chain, spec
from fusegen.base.errors import SpecError
from random_programs.program import Program

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
    for document, shapes in _smaller(program):
        candidate = _tidied(replace(program, document=document, shape=shapes[0], other=shapes[1]))
        key = candidate.text + str(candidate.shape)
        if key in seen or not _valid(candidate):
            continue
        seen.add(key)
        yield candidate


def _valid(program: Program) -> bool:
    """Whether the language takes it; a traceback is no refusal."""
    try:
        chain.derive(spec.parse(program.text, program.name))
    except SpecError:
        return False
    except Exception:
        return True
    return True


def _smaller(program: Program) -> Iterator[tuple[dict[str, Any], tuple[Any, Any]]]:
    shapes = program.shape, program.other
    steps = program.document["chain"]
    if program.document.get("order", 2) > 1:
        yield {**program.document, "order": 1}, shapes
    for count in range(1, len(steps)):
        yield _with(program, steps[:count]), shapes
    for place in range(len(steps)):
        yield _with(program, steps[:place] + steps[place + 1 :]), shapes
    for place, step in enumerate(steps):
        for simpler in _simpler(step):
            yield _with(program, [*steps[:place], simpler, *steps[place + 1 :]]), shapes
    operands = program.document.get("operands", {})
    for name, kind in operands.items():
        if kind in ("full", "row", "col", "channel"):
            yield {**program.document, "operands": {**operands, name: "scalar"}}, shapes
        if isinstance(kind, dict) and kind["dtype"] == "float32":
            yield {**program.document, "operands": {**operands, name: kind["kind"]}}, shapes
    for dim, size in enumerate(program.shape):
        for less in sorted({1, 2, size // 2} - {0}):
            if less < size:
                yield dict(program.document), tuple(_resized(s, dim, less) for s in shapes)


def _with(program: Program, steps: list[Any]) -> dict[str, Any]:
    return {**program.document, "chain": copy.deepcopy(steps)}


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
    used = program.text.split("chain:")[1]
    for section in ("operands", "arguments"):
        held = {n: v for n, v in document.get(section, {}).items() if n in used}
        document.pop(section, None)
        if held:
            document[section] = held
    keys = ("order", "arguments", "dims", "operands", "chain")
    numbers = {n: v for n, v in program.numbers.items() if n in document.get("arguments", {})}
    positive = tuple(n for n in program.positive if n in document.get("operands", {}))
    ordered = {k: document[k] for k in keys if document.get(k)}
    return replace(program, document=ordered, numbers=numbers, positive=positive)
