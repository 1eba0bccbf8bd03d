"""Specs of named values from a seed: parts, several outputs and products, any dims, masks, calls of ops.

`Generator` follows the dims of one activation; here each value has a name, and the reference says its shape.
"""

from __future__ import annotations

import copy
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fusegen import chain, spec
from fusegen.base.errors import SpecError
from random_programs.attributes import number
from random_programs.formula_of_values import FormulaOfValues
from random_programs.generate import CrashError
from random_programs.program import Program, spec_text
from random_programs.reference import Call, values_of

#: A shape, and another one for a second call.
Shapes = tuple[tuple[int, ...], tuple[int, ...]]
_SIZES = (1, 2, 3, 4, 5, 7, 8, 16, 31, 33)
_MOST = 3000
_TRIES = 6
_POINTWISE = ("gelu", "swish", "mish", "tanh", "softplus", "relu", "square", "hardswish", "elu")
_OF_ROWS = ("softmax", "log_softmax", "layer_norm", "rms_norm", "normalize")
_REDUCE = ("sum", "mean", "amax", "amin", "var", "std", "norm", "logsumexp")
#: Formulas of so many parts.
_OF_PARTS = {
    2: ("softplus({0}) * tanh({1})", "swish({1}) * {0}", "clamp({0}, max=1) * ({1} + 1)"),
    3: ("{0} * sigmoid({1}) + {2}", "tanh({2}) * {0} - {1}"),
    4: ("sigmoid({0}) * tanh({2}) - {1} * {3}",),
}
_BESIDE = {1: "x * {0}", 2: "x * (1 + {0}) + {1}", 3: "tanh(x * {2} + {0}) * {1}"}


class NamedGenerator:
    """Draws one program.

    Args:
        name: the program's name.
        seed: the seed.
        refusals: counts the messages of the steps that were refused.
    """

    def __init__(self, name: str, seed: int, refusals: Counter[str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.name, self.seed = name, seed
        self.refusals = Counter() if refusals is None else refusals
        self.document: dict[str, Any] = {"chain": []}
        self.numbers: dict[str, float] = {}
        self.inputs: dict[str, tuple[tuple[int, ...], ...]] = {}  # of classes, their numbers too
        self.held: dict[str, tuple[int, ...]] = {}  # parameters
        self.values: dict[str, Shapes] = {}  # "x" is what reaches the next step
        self.x: Shapes = ((), ())
        self.ended = False

    def program(self) -> Program:
        """Return the program.

        Raises:
            CrashError: where a spec on the way to it ended in a traceback.
        """
        rng = self.rng
        self._begin()
        for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5))):
            for _ in range(_TRIES):
                if self._tried(self._steps) or self.ended:
                    break
            if self.ended:
                break
        while not self.document["chain"] or not self._tried(list):
            self._tried(self._pointwise)
        if rng.random() < 0.6:
            self._return_several()
        return self._made({**self.document, "order": rng.choice((1, 1, 1, 2))})

    def _made(self, document: dict[str, Any]) -> Program:
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

    def _begin(self) -> None:
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
            found = tuple(self.rng.choice(_SIZES) * n for n in times)
            if math.prod(found) <= _MOST:
                return found

    # Steps

    def _tried(self, draw: Callable[[], list[Any]]) -> bool:
        """Draw steps, and add them where the language takes them."""
        kept = copy.deepcopy((self.document, self.numbers, self.inputs, self.held, self.ended))
        steps = draw()
        document = {**self.document, "chain": [*self.document["chain"], *steps]}
        if (steps or draw is list) and self._accepted(document):
            self.document = document
            return True
        self.document, self.numbers, self.inputs, self.held, self.ended = kept
        return False

    def _accepted(self, document: dict[str, Any]) -> bool:
        program = self._made({**document, "order": 1})
        try:
            chain.derive_all(spec.parse(program.text, self.name))
        except SpecError as error:
            message = str(error).split(": ", 1)[-1]
            self.refusals[" ".join(w for w in message.split() if "'" not in w)[:90]] += 1
            return False
        except Exception as error:
            raise CrashError(program, error) from error
        try:
            first, second = (self._shapes(program, place) for place in range(2))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            self.refusals[f"torch: {error}"[:90]] += 1
            return False
        # A later step cannot start again from a whole that was taken apart, nor mix ranks.
        self.values = {n: (first[n], second[n]) for n in first if n in second}
        return True

    def _shapes(self, program: Program, place: int) -> dict[str, tuple[int, ...]]:
        operands = {
            n: torch.rand(shapes[place]) + 0.5 for n, shapes in (program.tensors or {}).items()
        }
        operands |= {n: torch.rand(shape) + 0.5 for n, shape in self.held.items()}
        operands = {n: t.round().long() * 0 if "target" in n else t for n, t in operands.items()}
        found = values_of(
            program.document, torch.rand(self.x[place]) + 0.5, Call(operands, self.numbers)
        )
        return {n: tuple(t.shape) for n, t in found.items() if n}

    def _steps(self) -> list[Any]:
        kinds = {
            self._formula: 5,
            self._pointwise: 2,
            self._of_rows: 5,
            self._reduced: 3,
            self._parts: 5,
            self._beside: 3,
            self._again: 3,
            self._masked: 2,
            self._rope: 3,
            self._product: 2,
            self._loss: 1,
            self._gate: 1,
            self._largest: 1 if not self.document["chain"] else 0,
        }
        return self.rng.choices([*kinds], [*kinds.values()])[0]()

    @property
    def _multiplied(self) -> bool:
        """Whether there is a product: after it the channels are the last dim."""
        return "linear" in spec_text({"chain": self.document["chain"]})

    @property
    def here(self) -> Shapes:
        """The shapes of what reaches the next step."""
        return self.values["x"]

    def _named(self, word: str, given: dict[str, Any]) -> list[Any]:
        return [{word: {"name": self.fresh("v"), **given}}]

    def fresh(self, stem: str) -> str:
        """Return a name that nothing has."""
        text = spec_text(self.document) + " ".join([*self.inputs, *self.held])
        return next(n for n in (f"{stem}{i}" for i in range(1, 999)) if n not in text)

    def dims(self, rank: int) -> Any:
        """Return a dim, or several, neighbours or not."""
        rng = self.rng
        if not self.document["dims"] or rank < 2 or rng.random() < 0.35:
            return -1
        if rng.random() < 0.5:
            return rng.choice((rng.randrange(rank), -1 - rng.randrange(rank)))
        return sorted(rng.sample(range(rank), rng.randrange(1, rank)))

    def _formula(self) -> list[Any]:
        given: dict[str, Any] = {"formula": FormulaOfValues(self).text()}
        alike = [n for n, s in self.values.items() if s == self.here and n != "x"]
        if alike and self.rng.random() < 0.25:
            given["formula"] = re.sub(r"\bx\b", self.rng.choice(alike), given["formula"])
        rows = (*_REDUCE, *_OF_ROWS, "max", "min")
        if self.document["dims"] and any(f"{word}(" in given["formula"] for word in rows):
            given["dim"] = self.dims(len(self.here[0]))
        return self._named("expr", given)

    def _pointwise(self) -> list[Any]:
        word = self.rng.choice(_POINTWISE)
        return self._named(word, {}) if self.rng.random() < 0.6 else [word]

    def _of_rows(self) -> list[Any]:
        word = self.rng.choice(_OF_ROWS)
        given: dict[str, Any] = {"dim": self.dims(len(self.here[0]))}
        if word.endswith("norm"):
            given["eps"] = self.rng.choice((1e-5, 0.01))
            if given["dim"] == -1 and self.rng.random() < 0.5:
                given["weight"] = self.tensor([s[-1:] for s in self.here], "col", of_rows=True)
        return self._named(word, given)

    def _reduced(self) -> list[Any]:
        word, given = self.rng.choice(_REDUCE), {"dim": self.dims(len(self.here[0]))}
        steps = self._named(word, {**given, "keepdim": True})
        if self.rng.random() < 0.5:  # go on in full
            alike = [n for n, s in self.values.items() if n != "x" and len(s[0]) > 1]
            if alike:
                other, name = self.rng.choice(alike), steps[0][word]["name"]
                steps += self._expr(f"{other} * tanh({name})")
        return steps

    def _expr(self, formula: str, **more: Any) -> list[Any]:
        return [{"expr": {"name": self.fresh("w"), "formula": formula, **more}}]

    def _cut(self, shapes: Shapes, dim: int) -> tuple[Any, int]:
        """Return the parts of a dim, equal or of sizes, and how many of them are as wide as the first."""
        rng, sizes = self.rng, [s[dim] for s in shapes]
        equal = [n for n in (2, 3, 4) if all(size % n == 0 for size in sizes)]
        stem = self.fresh("p")
        if equal and rng.random() < 0.55:
            count = rng.choice(equal)
            names = [f"{stem}_{n}" for n in range(count)]
            if sizes[0] == sizes[1] and rng.random() < 0.3:
                return dict.fromkeys(names, sizes[0] // count), count
            return names, count
        first = rng.randrange(1, min(sizes)) if min(sizes) > 1 else 1
        if 2 * first < min(sizes) and rng.random() < 0.6:
            return {f"{stem}_0": first, f"{stem}_1": first, f"{stem}_2": -1}, 2
        return {f"{stem}_0": first, f"{stem}_1": -1}, 1

    def _parts(self) -> list[Any]:
        dim = self._part_dim()
        parts, alike = self._cut(self.here, dim)
        names = list(parts)
        text = "tanh({0}) * {0}" if alike == 1 else self.rng.choice(_OF_PARTS[alike])
        given: dict[str, Any] = {"parts": parts}
        if isinstance(parts, list) and len(parts) == 2 and dim == -1 and self.rng.random() < 0.3:
            given["alternating"] = True
        elif dim != -1 or self.rng.random() < 0.5:
            given["dim"] = dim
        steps = self._expr(text.format(*names), **given)
        if alike < len(names):
            steps += self._expr(f"gelu({names[-1]})")
        return steps

    def _part_dim(self) -> int:
        rank = len(self.here[0])
        some = self.document["dims"] and self.rng.random() < 0.6
        return self.rng.choice((self.rng.randrange(rank), -1)) if some else -1

    def _beside(self) -> list[Any]:
        """Take parts of an operand, or of the product of one."""
        rng, dim = self.rng, self._part_dim()
        rank, count = len(self.here[0]), rng.choice((2, 3))
        names = [f"{self.fresh('q')}_{n}" for n in range(count)]
        shapes = [list(s) for s in self.here]
        place = dim % rank
        for d in range(rank):
            if d != place and rng.random() < 0.4:
                shapes = [[*s[:d], 1, *s[d + 1 :]] for s in shapes]
        parts: Any = names
        if rng.random() < 0.3:
            parts = dict.fromkeys(names, 1)
            shapes = [[*s[:place], count, *s[place + 1 :]] for s in shapes]
        else:
            shapes = [[*s[:place], s[place] * count, *s[place + 1 :]] for s in shapes]
        given = {"parts": parts, "dim": dim if self.document["dims"] else -1}
        if not self.document["dims"]:
            del given["dim"]
        text = _BESIDE[count].format(*names)
        fixed = self.here[0][-1] == self.here[1][-1]
        if fixed and place == rank - 1 and isinstance(parts, list) and rng.random() < 0.4:
            before = next((n for n, s in self.values.items() if s == self.here and n != "x"), None)
            if before is None:
                return []
            start = self.tensor([(*s[:-1], 5) for s in shapes], "full")
            product = self._linear(start, 5, shapes[0][-1])
            text = re.sub(r"\bx\b", before, text)
            return [product, *self._expr(text, **given, of=product["linear"]["name"])]
        kept = [d for d in range(rank) if any(s[d] != 1 for s in shapes)]
        declared = (
            {"dims": sorted({*kept, place})}
            if self.document["dims"] and rng.random() < 0.7
            else "full"
        )
        whole = self.tensor([tuple(s) for s in shapes], declared)
        return self._expr(text, **given, of=whole)

    def _again(self) -> list[Any]:
        names = [n for n, s in self.values.items() if n != "x" and len(s[0]) == len(self.x[0])]
        if not names:
            return []
        name = self.rng.choice(names)
        return self._expr(self.rng.choice(("{0}", "tanh({0})", "{0} * sigmoid({0})")).format(name))

    def _masked(self) -> list[Any]:
        mask = self.operand_like(self.here, bool)
        return self._named("masked_fill", {"mask": mask, "value": self.rng.choice((0.0, -3.0))})

    def _rope(self) -> list[Any]:
        rng, widths = self.rng, [s[-1] for s in self.here]
        factors = [f for f in (1.0, 1.0, 0.5, 0.25) if all(w * f % 2 == 0 for w in widths)]
        factors = [f for f in factors if all(w % round(2 / f) == 0 for w in widths)]
        if not factors:
            return []
        factor, per_pair = rng.choice(factors), rng.random() < 0.3
        given: dict[str, Any] = {"interleaved": rng.random() < 0.5}
        if factor != 1:
            given["partial_rotary_factor"] = factor
        if per_pair:
            given["per_pair"] = True
        keep = [rng.random() < 0.5 for _ in self.here[0]]
        tables = []
        for _ in range(2):
            shapes = [
                (
                    *(n if k else 1 for n, k in zip(s[:-1], keep, strict=False)),
                    round(s[-1] * factor) // (2 if per_pair else 1),
                )
                for s in self.here
            ]
            tables.append(self.tensor(shapes, {"kind": "full", "gradient": False}))
        if rng.random() < 0.5:
            text = "".join(f", {n}={str(v).lower()}" for n, v in given.items())
            return self._expr(f"rope(x, {tables[0]}, {tables[1]}{text})")
        return self._named("rope", {"cos": tables[0], "sin": tables[1], **given})

    def _linear(self, of: str, wide: int, out: int) -> dict[str, Any]:
        name = self.fresh("m")
        self.held[f"{name}_weight"] = (out, wide)
        given: dict[str, Any] = {"name": name, "in_features": wide, "out_features": out}
        if of:
            given["of"] = of
        if self.rng.random() < 0.3:
            given["bias"] = False
        else:
            self.held[f"{name}_bias"] = (out,)
        return {"linear": given}

    def _product(self) -> list[Any]:
        rng = self.rng
        names = [n for n, s in self.values.items() if s[0][-1:] == s[1][-1:] and len(s[0]) >= 2]
        if not names:
            return []
        of = rng.choice((*names, "x")) if "x" in names else rng.choice(names)
        given = "" if of == "x" else of
        out = rng.choice((*_SIZES, 2, 6, 12, self.values[of][0][-1]))
        if math.prod(self.values[of][0][:-1]) * out > _MOST:
            return []
        return [self._linear(given, self.values[of][0][-1], out)]

    def _gate(self) -> list[Any]:
        word = self.rng.choice(("glu", "geglu", "swiglu", "reglu"))
        given: dict[str, Any] = {"gate_first": True} if self.rng.random() < 0.5 else {}
        dim = self._part_dim()
        return self._named(word, given | ({"dim": dim} if dim != -1 else {}))

    def _loss(self) -> list[Any]:
        rng, rank = self.rng, len(self.here[0])
        self.ended = rng.random() < 0.7
        if rng.random() < 0.4:
            word = rng.choice(("mse_loss", "l1_loss", "smooth_l1_loss", "kl_div"))
            target = self.operand_like(self.here, float)
            steps = self._named(word, {"target": target, "reduction": "none"})
        else:
            dim = 1 if self.document["dims"] else rank - 1
            if rank > 2 and not self.document["dims"]:
                return []
            word = rng.choice(("cross_entropy", "nll_loss"))
            shapes = [(*s[:dim], *s[dim + 1 :]) for s in self.here]
            target = self.tensor(
                shapes, {"kind": "row", "dtype": rng.choice(("int64", "int32"))}, "target"
            )
            classes = tuple(s[dim] for s in self.here)
            self.inputs[target] = (*self.inputs[target][:2], classes)
            steps = self._named(word, {"target": target, "reduction": "none"})
            weight = self.tensor(shapes, "row", "row_p")
            steps += self._named("mul", {"other": weight})
            steps[-1]["mul"]["name"] += "w"
        return [*steps, "sum"] if self.ended and rng.random() < 0.6 else steps

    def _largest(self) -> list[Any]:
        if len(self.here[0]) > 2 and not self.document["dims"]:
            return []
        given = {"dim": self.rng.choice((-1, 1)), "keepdim": self.rng.random() < 0.5}
        steps = self._named(self.rng.choice(("argmax", "argmin")), given)
        (word,) = steps[0]
        self.document["outputs"] = [steps[0][word]["name"], "v_last"]
        return [*steps, {"expr": "input"}, {"swish": {"name": "v_last"}}]

    def _return_several(self) -> None:
        """Return some values beside the last one, those that may be returned."""
        last = self.document["chain"][-1]
        given = next(iter(last.values())) if isinstance(last, dict) else None
        if not isinstance(given, dict) or "name" not in given or "outputs" in self.document:
            return
        names = [n for n in self.values if n not in ("x", "input", given["name"])]
        self.rng.shuffle(names)
        outputs: list[Any] = [given["name"]]
        for name in names[: self.rng.choice((1, 2, 3))]:
            for entry in ({"name": name, "dtype": "float32"}, name):
                if isinstance(entry, dict) and self.rng.random() < 0.6:
                    continue
                wanted = [*outputs, entry]
                self.rng.shuffle(wanted)
                if self._accepted({**self.document, "outputs": wanted}):
                    outputs = wanted
                    break
        if len(outputs) > 1:
            self.document["outputs"] = outputs

    # What steps are given

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
        if self.document["dims"] and rng.random() < 0.6 and any(keep) and not all(keep):
            declared = {"dims": [d for d in range(rank) if keep[d]]}
        elif rank == 2 and not self.document["dims"] and keep[0] != keep[1] and like[0][1] > 1:
            declared = {"kind": "row" if keep[0] else "col"}
        elif self.document["dims"] and not self._multiplied and rng.random() < 0.2:
            shapes = [(s[1], *[1] * (rank - 2)) for s in like]
            declared = {"kind": "channel"}
        if rng.random() < 0.4 and declared.get("kind") != "row":  # without leading dims
            while shapes[0] and all(s[:1] == (1,) for s in shapes):
                shapes = [s[1:] for s in shapes]
        if dtype is bool:
            declared["dtype"] = "bool"
        elif rng.random() < 0.12:
            declared["gradient"] = False
        elif declared != {"kind": "full"} and rng.random() < 0.3:
            declared["dtype"] = "float32"
        return self.tensor(shapes, declared, "mask" if dtype is bool else "t")

    def tensor(
        self,
        shapes: Sequence[Sequence[int]],
        declared: Any,
        stem: str = "t",
        *,
        of_rows: bool = False,
    ) -> str:
        """Declare an operand of these shapes."""
        name = self.fresh(stem + "_" if stem == "t" else stem)
        fixed = tuple(shapes[0]) == tuple(shapes[1]) and len(shapes[0]) > 0
        entry: Any = dict(declared) if isinstance(declared, dict) else {"kind": declared}
        plain = not {"gradient"} & set(entry) and entry.get("dtype", "float32") == "float32"
        can = entry.get("kind") in ("col", "channel") or "dims" in entry
        if fixed and plain and can and self.rng.random() < 0.25:
            entry |= {"init": "randn", "shape": list(shapes[0])}
            self.held[name] = tuple(shapes[0])
        else:
            self.inputs[name] = (tuple(shapes[0]), tuple(shapes[1]))
        if of_rows and self.rng.random() < 0.3:
            entry["dtype"] = "float32"
        self.document.setdefault("operands", {})[name] = entry
        return name
