"""A program of named values on its way: its spec, its operands, and the shape of each value by its name."""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from fusegen import chain, spec
from fusegen.base.errors import SpecError
from fusegen.chain import Segment
from random_programs.attributes import number
from random_programs.draft import CrashError, Draft
from random_programs.program import Program, spec_text
from random_programs.reference import OWN_DIMS
from random_programs.shapes import shapes_of

#: A shape, and another one for a second call.
Shapes = tuple[tuple[int, ...], tuple[int, ...]]
#: Sizes of dims, and how many elements an activation has at most.
SIZES = (1, 2, 3, 4, 5, 7, 8, 16, 31, 33)
MOST = 3000


class NamedDraft(Draft):
    """Takes the steps that the language takes, and draws operands for them; see `Draft`."""

    def __init__(self, name: str, seed: int, refusals: Counter[str] | None = None) -> None:
        super().__init__(name, seed, refusals)
        self.inputs: dict[str, tuple[tuple[int, ...], ...]] = {}  # of classes, their numbers too
        self.held: dict[str, tuple[int, ...]] = {}  # parameters
        self.values: dict[str, Shapes] = {}  # "x" is what reaches the next step
        self.x: Shapes = ((), ())

    def made(self, document: dict[str, Any]) -> Program:
        keys = ("order", "arguments", "dims", "operands", "outputs", "chain")
        used = spec_text({"chain": document["chain"]})
        ordered = {k: document[k] for k in keys if document.get(k)}
        for section in ("operands", "arguments"):
            if section in ordered:
                known = ordered.pop(section)
                ordered[section] = {n: o for n, o in known.items() if re.search(rf"\b{n}\b", used)}
        ordered = {k: ordered[k] for k in keys if ordered.get(k)}
        tensors = {n: s for n, s in self.inputs.items() if n in ordered.get("operands", {})}
        numbers = {n: v for n, v in self.numbers.items() if n in ordered.get("arguments", {})}
        return Program(
            self.name, ordered, *self.x, numbers, tuple(self._positive()), self.seed, tensors
        )

    def _positive(self) -> list[str]:
        return [name for name in self.inputs if name.endswith("_p")]

    def begin(self) -> None:
        rng = self.rng
        rank = rng.choice((2, 2, 3, 3, 4, 5))
        self.document["dims"] = 0 if rank == 2 or (rank == 3 and rng.random() < 0.4) else rank
        times = [1] * rank
        for _ in range(rng.choice((1, 1, 2))):  # dims that can be cut into parts
            times[rng.choice((-1, rng.randrange(rank)))] *= rng.choice((2, 2, 3, 4))
        shapes = [self._sizes(times) for _ in range(2)]
        if rng.random() < 0.6:  # parameters may be as wide
            shapes[1] = (*shapes[1][:-1], shapes[0][-1])
        self.x = (shapes[0], shapes[1])
        self.values = {"x": self.x, "input": self.x}

    def _sizes(self, times: Sequence[int]) -> tuple[int, ...]:
        while True:
            found = tuple(self.rng.choice(SIZES) * n for n in times)
            if math.prod(found) <= MOST:
                return found

    def tried(self, draw: Callable[[], list[Any]]) -> bool:
        """Draw steps, and add them where the language takes them."""
        kept = copy.deepcopy((self.document, self.numbers, self.inputs, self.held, self.ended))
        steps = draw()
        document = {**self.document, "chain": [*self.document["chain"], *steps]}
        if (steps or draw is list) and self.accepted(document):
            self.document = document
            return True
        self.document, self.numbers, self.inputs, self.held, self.ended = kept
        return False

    def accepted(self, document: dict[str, Any]) -> bool:
        program = self.made({**document, "order": 1})
        try:
            made = chain.derive_all(spec.parse(program.text, self.name))
        except SpecError as error:
            self.refused(error)
            return False
        except Exception as error:
            raise CrashError(program, error) from error
        if not all(map(self._is_sized, made.segments)):
            self.refusals["an operand of size 1 gives a value its size"] += 1
            return False
        try:
            first, second = (shapes_of(program, place) for place in range(2))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            self.refusals[f"torch: {error}"[:90]] += 1
            return False
        # A later step cannot start again from a whole that was taken apart, nor mix ranks.
        self.values = {n: (first[n], second[n]) for n in first if n in second}
        return True

    def _is_sized(self, segment: Segment) -> bool:
        """Whether operands are as large as a call must pass them where they alone give a value its size."""
        return all(
            any(self._size(name, place, dim) != 1 for name in names)
            for dim, names in segment.span.sized
            for place in range(2)
        )

    def _size(self, name: str, place: int, dim: int) -> int:
        """Return the size of an operand along a dim, counted from the end, in one of the two calls."""
        shape = self.held[name] if name in self.held else self.inputs.get(name, ((0,), (0,)))[place]
        if OWN_DIMS in name:
            dims = self.document["operands"][name]["dims"]
            sizes = {d - self.document["dims"]: n for d, n in zip(dims, shape, strict=True)}
            return sizes.get(dim, 1)
        return shape[dim] if len(shape) >= -dim else 1

    @property
    def multiplied(self) -> bool:
        """Whether there is a product: after it the channels are the last dim."""
        return "linear" in spec_text({"chain": self.document["chain"]})

    @property
    def here(self) -> Shapes:
        """The shapes of what reaches the next step."""
        return self.values["x"]

    def fresh(self, stem: str) -> str:
        """Return a name that nothing has."""
        text = spec_text(self.document) + " ".join([*self.inputs, *self.held])
        return next(n for n in (f"{stem}{i}" for i in range(1, 999)) if n not in text)

    def name_of_x(self) -> str:
        """Return the name by which a step can also call what it is given; "" if there is none."""
        return next((n for n, s in self.values.items() if n != "x" and s == self.here), "")

    def operand(self, op: None, name: str) -> Any:
        """Return what fills a place in a formula: a tensor, an earlier value, or a number."""
        del op, name
        rng, here = self.rng, self.here
        draw = rng.random()
        if draw < 0.3:
            names = [n for n, s in self.values.items() if n != "x" and len(s[0]) == len(here[0])]
            return rng.choice(names) if names else number(rng)
        if draw < 0.4:
            return self.argument(abs(number(rng)) + 0.25)
        known = [n for n in self.inputs if n.startswith("t")]
        if draw < 0.55 and known:
            return rng.choice(known)
        return self.operand_like(here, float)

    def argument(self, value: float) -> str:
        """Declare a new float argument."""
        arguments = self.document.setdefault("arguments", {})
        name = f"factor_{len(arguments) + 1}a"
        arguments[name] = "float"
        self.numbers[name] = float(f"{value:.3g}")
        return name

    def operand_like(self, like: Shapes, dtype: type) -> str:
        """Declare an operand that broadcasts to some shapes: its dims are any of theirs."""
        rng, rank = self.rng, len(like[0])
        keep = [rng.random() < 0.55 for _ in range(rank)]
        shapes = [tuple(n if k else 1 for n, k in zip(s, keep, strict=True)) for s in like]
        declared: dict[str, Any] = {"kind": "full"}
        several = rank > 1 and all(s[1] > 1 for s in like)  # else it makes what is reduced larger
        if self.document["dims"] and rng.random() < 0.6 and any(keep) and not all(keep):
            # Dims are x's, of which a loss has dropped the channels.
            left = [
                d for d in range(self.document["dims"]) if d != 1 or rank == self.document["dims"]
            ]
            declared = {"dims": [d for d, kept in zip(left, keep, strict=True) if kept]}
        elif rank == 2 and not self.document["dims"] and keep[0] != keep[1] and like[0][1] > 1:
            declared = {"kind": "row" if keep[0] else "col"}
        elif self.document["dims"] and not self.multiplied and rng.random() < 0.2 and several:
            shapes = [(s[1], *[1] * (rank - 2)) for s in like]
            declared = {"kind": "channel"}
        stem = "mask" if dtype is bool else "t"
        if "dims" in declared and rng.random() < 0.4:  # with its own dims alone
            shapes = [tuple(n for n, k in zip(s, keep, strict=True) if k) for s in shapes]
            stem += OWN_DIMS
        elif rng.random() < 0.4 and declared.get("kind") != "row":  # without leading dims
            while shapes[0] and all(s[:1] == (1,) for s in shapes):
                shapes = [s[1:] for s in shapes]
        if dtype is bool:
            declared["dtype"] = "bool"
        elif rng.random() < 0.12:
            declared["gradient"] = False
        elif declared != {"kind": "full"} and rng.random() < 0.3:
            declared["dtype"] = "float32"
        return self.tensor(shapes, declared, stem)

    def tensor(
        self,
        shapes: Sequence[Sequence[int]],
        declared: Any,
        stem: str = "t",
        *,
        of_rows: bool = False,
    ) -> str:
        """Declare an operand of these shapes."""
        name = self.fresh(stem + "_" if stem[:1] == "t" and stem != "target" else stem)
        fixed = tuple(shapes[0]) == tuple(shapes[1]) and len(shapes[0]) > 0
        entry: Any = dict(declared) if isinstance(declared, dict) else {"kind": declared}
        plain = not {"gradient"} & set(entry) and entry.get("dtype", "float32") == "float32"
        can = entry.get("kind") in ("col", "channel") or "dims" in entry
        if fixed and plain and can and OWN_DIMS not in stem and self.rng.random() < 0.25:
            entry |= {"init": "randn", "shape": list(shapes[0])}
            self.held[name] = tuple(shapes[0])
        else:
            self.inputs[name] = (tuple(shapes[0]), tuple(shapes[1]))
        if of_rows and self.rng.random() < 0.3:
            entry["dtype"] = "float32"
        self.document.setdefault("operands", {})[name] = entry
        return name
