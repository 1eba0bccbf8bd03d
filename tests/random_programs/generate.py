"""Specs from a seed: step after step is drawn from the vocabulary, and kept where the language takes it."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from typing import Any

from fusegen import chain, spec
from fusegen.base.errors import SpecError
from fusegen.ops import Op, find, registry
from random_programs.attributes import attributes_of, number
from random_programs.draft import CrashError, Draft
from random_programs.formula_text import Formulas
from random_programs.program import Program, spec_text

#: How often an op is drawn; those that are not named, as often as 1.
_WEIGHTS = {
    **{"dropout": 0.7, "alpha_dropout": 0.4, "causal_mask": 0.7, "where": 0.7, "sign": 0.4},
    **{"floor": 0.3, "ceil": 0.3, "round": 0.3, "trunc": 0.3, "frac": 0.5},
    "masked_fill": 0.0,  # a random number is never 0, and all would be masked
}
#: Ops that are NaN below 0: a step that makes the value positive mostly stands before them.
_OF_POSITIVE = ("log", "log2", "log10", "sqrt", "rsqrt", "pow", "log1p")
_POSITIVE = ("softplus", "sigmoid", "square", "abs", "exp")
#: Of each op that has a value on a part of the line, the steps that mostly stand before it.
_BEFORE = {
    **dict.fromkeys(_OF_POSITIVE, _POSITIVE),
    **dict.fromkeys(("acos", "asin", "atanh"), ("tanh", "sigmoid", "sin", "cos", "erf")),
    "acosh": ("cosh", "exp"),
}
_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 40, 65, 129)
_REDUCE = ("sum", "mean", "amax", "amin", "max", "min", "var", "std", "norm", "logsumexp")
_KINDS = ("full", "full", "row", "col", "col", "channel", "scalar")
_TRIES = 12


class Generator(Draft):
    """Draws one program; see `Draft`."""

    def __init__(self, name: str, seed: int, refusals: Counter[str] | None = None) -> None:
        super().__init__(name, seed, refusals)
        self.positive: list[str] = []
        self.values: list[str] = []  # the names of earlier values
        self.features = 0
        self.wide = True  # whether what reaches the next step has so many channels
        self.rank = 0  # the dims that reach the next step, 0 for any
        self.scalar = False  # whether one number reaches it
        self.dropped = False  # whether the row was dropped
        self.shape: tuple[int, ...] = ()

    def program(self) -> Program:
        """Return the program.

        Raises:
            CrashError: where a spec on the way to it ended in a traceback.
        """
        rng = self.rng
        self._begin()
        wanted = rng.choice((1, 2, 2, 3, 3, 4, 5, 6, 8))
        for _ in range(wanted):
            for _ in range(_TRIES):
                if self._try_step():
                    break
            if self.ended:
                break
        self.document["order"] = self.rng.choice((1, 1, 1, 2))
        return self._made(self.document)

    def _made(self, document: dict[str, Any]) -> Program:
        keys = ("order", "arguments", "dims", "operands", "chain")
        ordered = {k: document[k] for k in keys if document.get(k)}
        if "operands" in ordered:
            operands = enumerate(ordered["operands"].items(), self.seed)
            ordered["operands"] = {name: _in_float32(kind, n) for n, (name, kind) in operands}
        shapes = [self.shape, self._other_shape()]
        if any(_named(step)[0] == "causal_mask" for step in document["chain"]):
            shapes = [self._distinct(shape) for shape in shapes]  # a size tells which dim is masked
        return Program(
            self.name, ordered, *shapes, dict(self.numbers), tuple(self.positive), self.seed
        )

    def name_of_x(self) -> str:
        """Return the name by which a step can also call what it is given; "" if there is none."""
        chain = self.document["chain"]
        given = _named(chain[-1])[1] if chain else {"name": "input"}
        return str(given.get("name", "")) if isinstance(given, dict) else ""

    # The start

    def _begin(self) -> None:
        rng = self.rng
        start = rng.random()
        if start < 0.4:
            self.document["dims"] = 0
            rank = rng.choice((2, 2, 2, 3))
        elif start < 0.65:
            rank = self.document["dims"] = rng.choice((3, 4, 4, 5))
        else:
            sources = [
                op
                for op in registry().values()
                if op.source and (op.operands or op.inputs) and op.name != "matmul"
            ]
            op = rng.choice([*sources, *[find("linear")] * 4])
            assert op is not None
            self._source(op)
            return
        self.rank = self.document["dims"]
        self.values.append("input")
        sizes = [rng.choice(_SIZES[:9]) for _ in range(rank)]
        if not self.document["dims"]:
            sizes[-1] = rng.choice(_SIZES)
        else:
            sizes = [min(n, 9) for n in sizes]
            sizes[1] = rng.choice((1, 2, 3, 4, 6, 8, 12))
        self.shape = tuple(sizes)
        self.features = self.shape[1] if self.document["dims"] else self.shape[-1]
        self.widths_known = False
        if rng.random() < 0.12:
            self._split()

    def _split(self) -> None:
        """Start from parts of x: two of a gated unit, or up to five of a formula, for later steps too."""
        rank, rng = self.document.get("dims", 0), self.rng
        word = rng.choice(("glu", "geglu", "swiglu", "reglu"))
        op = find(word)
        assert op is not None
        dim = rng.randrange(rank) if rank else -1
        given = {
            **attributes_of(op, self, keep=("approximate", "beta")),
            **({"dim": dim} if rank else {}),
        }
        # Without a number drawn, so that seeds give the programs that they gave, but for every third.
        count = 2 + self.seed // 3 % 4 if self.seed % 3 == 0 else 2
        parts = [f"part_{n}a" for n in range(1, 1 + count)] if self.seed % 3 == 0 else []
        if parts:
            word, given = "expr", {k: v for k, v in given.items() if k == "dim"}
            given |= {"formula": _PARTED[count].format(*parts), "parts": parts}
        if dim in (-1, rank - 1) and sum(self.shape) % 2 and count == 2:
            given["alternating"] = True
        document = copy.deepcopy(self.document)
        document["chain"].append({word: given} if given else word)
        place = dim % len(self.shape)
        shape = tuple(count * n if d == place else n for d, n in enumerate(self.shape))
        if self._accepted(document):
            self.document, self.shape = document, shape
            self.values = [*(v for v in self.values if v != "input"), *parts]

    def _source(self, op: Op) -> None:
        rng = self.rng
        features = self.features = rng.choice((1, 2, 3, 4, 6, 7, 8, 12, 17, 33))
        given: dict[str, Any] = {"name": rng.choice(("gemm", "product", "proj"))}
        rank = op.rank or 2
        if op.name == "linear":
            given |= {"in_features": 5, "out_features": features}
            self.shape = (rng.choice(_SIZES[:9]), features)
        elif op.name == "bmm":
            self.shape = (rng.choice((1, 2, 3)), rng.choice(_SIZES[:8]), features)
            self.features = self.shape[1]
        else:
            features = self.features = min(features, 12)
            given |= {"in_channels": 3, "out_channels": features, "kernel_size": rng.choice((1, 2))}
            self.shape = (
                rng.choice((1, 2, 3)),
                features,
                *(rng.choice((1, 2, 3, 5, 7)) for _ in range(rank - 2)),
            )
            for name, values in (("stride", (1, 2)), ("padding", (0, 1)), ("dilation", (1, 2))):
                if rng.random() < 0.25:
                    given[name] = rng.choice(values)
        if op.name != "bmm" and rng.random() < 0.2:
            given["bias"] = False
        self.document["dims"] = op.rank
        self.rank = op.rank
        self.values.append(given["name"])
        step: dict[str, Any] = {op.name: given}
        if rng.random() < 0.12 and features % 2 == 0 and op.name != "bmm":
            self.features = features // 2
            word = rng.choice(("glu", "geglu", "swiglu", "reglu"))
            self.document["chain"] = [step, {word: {"dim": 1}} if op.rank else word]
            self.values.clear()
        else:
            self.document["chain"] = [step]

    def _splitting(self) -> dict[str, Any] | None:
        """Return what the step that takes parts is given, if the chain starts with one."""
        steps = [_named(step) for step in self.document["chain"][:2]]
        given = (
            g or {} for word, g in steps if word in _GATES or (word == "expr" and "parts" in g)
        )
        return next(given, None)

    def _fixed_dims(self) -> set[int]:
        """Return the dims whose sizes stay: the channels, and what a half fixes."""
        if not self.document["dims"]:
            return {len(self.shape) - 1}
        first = self._splitting()
        split = set() if first is None else {first.get("dim", -1) % len(self.shape)}
        return {1} | split

    def _distinct(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape of which no two dims have the same size, but for those that stay."""
        fixed, sizes = self._fixed_dims(), list(shape)
        seen = {sizes[d] for d in fixed}
        for d in (d for d in range(len(sizes)) if d not in fixed):
            while sizes[d] in seen:
                sizes[d] += 1
            seen.add(sizes[d])
        return tuple(sizes)

    def _other_shape(self) -> tuple[int, ...]:
        """Return another shape: the channels stay, and so does what a source or a half fixes."""
        rng = random.Random(self.seed + 1)
        dims, fixed = self.document["dims"], self._fixed_dims()
        sizes = [
            n if d in fixed else max(1, n + rng.choice((-2, -1, 1, 2, 3)))
            for d, n in enumerate(self.shape)
        ]
        first = self._splitting()
        if not dims and not self.document.get("sized") and self.free_width:
            count = 1 if first is None else len(first.get("parts", _GATES[:2]))
            sizes[-1] = rng.choice(_SIZES) * count
        return tuple(sizes)

    @property
    def free_width(self) -> bool:
        """Whether nothing in the spec says how wide a row is."""
        words = [_named(step) for step in self.document["chain"]]
        return not any(
            (op := find(word)) is not None and (op.source or op.submodule is not None)
            for word, _ in words
        )

    # Steps

    def _try_step(self) -> bool:
        """Draw a step, and add it where the language takes it."""
        saved = copy.deepcopy((self.document, self.numbers, self.positive))
        kept = (self.rank, self.scalar, self.dropped, self.ended, list(self.values), self.wide)
        steps = self._steps()
        if steps is not None:
            self.document["chain"] += steps
            if self._accepted(self.document):
                return True
        self.document, self.numbers, self.positive = saved
        self.rank, self.scalar, self.dropped, self.ended, self.values, self.wide = kept
        return False

    def _accepted(self, document: dict[str, Any]) -> bool:
        used = spec_text(document)
        named = {n for n in document.get("operands", {}) if n in used.split("chain:")[1]}
        document["operands"] = {n: o for n, o in document.get("operands", {}).items() if n in named}
        program = self._made({**document, "order": 1})
        try:
            derived = chain.derive(spec.parse(program.text, self.name))
        except SpecError as error:
            self.refused(error)
            return False
        except Exception as error:
            raise CrashError(program, error) from error
        if derived.layout.rank == 2:  # torch's function means another dim where there are more
            self.shape = (self.shape[0], self.shape[-1])
        return True

    def _steps(self) -> list[Any] | None:
        rng = self.rng
        draw = rng.random()
        if draw < 0.18:
            return self._formula()
        if draw < 0.33:
            return self._arithmetic()
        if draw < 0.48:
            return self._op(find(rng.choice(_REDUCE)))
        if draw < 0.63:
            names = ("softmax", "softmin", "log_softmax", "layer_norm", "rms_norm", "normalize")
            more = ("batch_norm", "group_norm", "instance_norm", "prelu", "dropout")
            return self._op(find(rng.choice((*names, *more))))
        ops = [op for op in registry().values() if not (op.source or op.paired or op.indexes)]
        weights = [_WEIGHTS.get(op.name, 1.0) for op in ops]
        return self._op(rng.choices(ops, weights)[0])

    def _arithmetic(self) -> list[Any]:
        word = self.rng.choice(
            ("add", "sub", "mul", "div", "add", "mul", "maximum", "minimum", "rsub")
        )
        op = find(word)
        assert op is not None
        return self._op(op) or []

    def _formula(self) -> list[Any] | None:
        dims = None
        if self.rank >= 3:
            if self.scalar or self.dropped:
                rows = False
            else:
                rows = self.rng.random() < 0.5
                dims = self._dims(several=True) if rows else None
        else:
            rows = not (self.scalar or self.dropped)
        text = Formulas(self, rows=rows).text()
        given: dict[str, Any] = {"formula": text}
        if dims is not None and any(
            f"{name}(" in text for name in (*_REDUCE, "softmax", "log_softmax")
        ):
            given["dim"] = dims
        if rows and any(f"{name}(" in text for name in _REDUCE):
            self.wide = self.wide and not self._of_channels(dims)
        self._label(given, "step")
        return [{"expr": given}] if len(given) > 1 else [{"expr": text}]

    def _op(self, op: Op | None) -> list[Any] | None:
        assert op is not None
        if op.submodule is not None and op.submodule.sized_by and not self.wide:
            return None
        rng = self.rng
        given: dict[str, Any] = attributes_of(op, self)
        if op.submodule is not None:
            given["name"] = self._fresh("norm" if "norm" in op.name else "part")
            self._sized(op, given)
        else:
            for name in op.operands:
                if name == op.classes:
                    given[name] = self._classes(op)
                    continue
                if (
                    name in op.parts
                    and rng.random() < 0.05
                    and not self.shape[given.get("dim", -1)] % 2
                ):
                    continue
                if name in op.optional and rng.random() < 0.5:
                    continue
                given[name] = self.operand(op, name)
            self._label(given, "step")
        steps: list[Any] = [{op.name: given} if given else op.name]
        if op.name in _BEFORE and rng.random() < 0.85:
            steps.insert(0, rng.choice(_BEFORE[op.name]))
        self._after(op, given)
        if "name" in given:
            self.values.append(given["name"])
        return steps

    def _sized(self, op: Op, given: dict[str, Any]) -> None:
        assert op.submodule is not None
        source = find(_named(self.document["chain"][0])[0]) if self.document["chain"] else None
        known = source is not None and source.source and source.name != "bmm"
        if "features" in op.submodule.sized_by and not known:
            given["features"] = self.features
        if op.groups:
            counts = [n for n in (1, 2, 3, 4, 6) if self.features % n == 0]
            given["num_groups"] = self.rng.choice(counts)
        if op.submodule.channels and self.rng.random() < 0.5:
            given[op.submodule.channels] = self.features
        if op.submodule.flag and self.rng.random() < 0.5:
            given[op.submodule.flag] = not op.submodule.flagged

    def _after(self, op: Op, given: dict[str, Any]) -> None:
        """Follow the dims after a step."""
        if op.over == "channel":
            self.wide = False
        if op.dims and op.name in _REDUCE:
            dim = given.get("dim")
            kept = self.rank >= 3 and bool(given.get("keepdim"))
            self.wide = self.wide and kept and not self._of_channels(dim)
            if dim is None:
                self.scalar = True
            elif not given.get("keepdim"):
                self.dropped = True
                if self.rank:
                    self.rank -= len(dim) if isinstance(dim, list) else 1
                    self.dropped = self.rank < 3
        if "reduction" in op.attributes:
            if given.get("reduction", "mean") != "none":
                self.scalar = True
            elif op.over == "channel":
                self.dropped = True
                self.rank = max(self.rank - 1, 0)

    def _of_channels(self, dim: Any) -> bool:
        """Whether the channels are among some dims, or all of them are."""
        if dim is None or self.rank < 3:
            return True
        return 1 in [d % self.rank for d in (dim if isinstance(dim, list) else [dim])]

    def _label(self, given: dict[str, Any], stem: str) -> None:
        if self.rng.random() < 0.25 and not (self.scalar or self.dropped):
            given["name"] = self._fresh(stem)
            if stem == "step":
                self.values.append(given["name"])

    def _fresh(self, stem: str) -> str:
        taken = spec_text(self.document)
        return next(n for n in (f"{stem}_{i}a" for i in range(1, 99)) if n not in taken)

    # What steps are given

    def _dims(self, *, several: bool) -> Any:
        """Return a dim, or several neighbouring ones."""
        rank, rng = self.rank, self.rng
        if rank < 3:
            return -1 if rng.random() < 0.8 or len(self.shape) != 2 else 1
        first = rng.randrange(rank)
        if several and rng.random() < 0.5 and first + 1 < rank:
            last = rng.randrange(first + 1, rank)
            return list(range(first, last + 1))
        return first if rng.random() < 0.7 else first - rank

    def dims_for(self, op: Op) -> Any:
        """Return the dims that an op is given, or None for its default."""
        rng = self.rng
        if op.attributes["dim"] is None and "dim" not in op.required and rng.random() < 0.15:
            return None
        if "dim" not in op.required and op.attributes["dim"] is not None and rng.random() < 0.3:
            return None
        return self._dims(several=op.several)

    def operand(self, op: Op | None, name: str) -> Any:
        """Return what fills an operand's place: a new tensor, a known one, an earlier value, a number."""
        rng = self.rng
        draw = rng.random()
        fixed = op.operands[name] if op else None
        positive = op is not None and (
            op.name == "div" or name in ("weight", "exponent", "pos_weight", "target")
        )
        # A value over itself is 1 here, also where it is 0, which torch has NaN for.
        if draw < 0.2 and self.values and fixed is None and not (op and op.name == "div"):
            return rng.choice(self.values)
        if draw < 0.35:
            value = number(rng)
            return abs(value) or 0.5 if positive else value
        if draw < 0.42:
            return self.argument(abs(number(rng)) + 0.25)
        if draw < 0.5 and (
            known := [
                n for n, o in self.document.get("operands", {}).items() if "int64" not in str(o)
            ]
        ):
            return rng.choice(known)
        if fixed is None:
            kind = rng.choice(_KINDS if not (self.scalar or self.dropped) else ("scalar", "row"))
        else:
            kind = rng.choice((fixed.label, fixed.label, "scalar"))
        return self.tensor(kind, positive=positive or rng.random() < 0.5)

    def tensor(self, kind: str, *, positive: bool) -> str:
        """Declare a new operand."""
        operands = self.document.setdefault("operands", {})
        name = next(n for n in (f"{kind}_{i}a" for i in range(1, 99)) if n not in operands)
        operands[name] = kind
        if positive:
            self.positive.append(name)
        return name

    def argument(self, value: float) -> str:
        """Declare a new float argument."""
        arguments = self.document.setdefault("arguments", {})
        name = f"factor_{len(arguments) + 1}a"
        arguments[name] = "float"
        self.numbers[name] = float(f"{value:.3g}")
        return name

    def _classes(self, op: Op) -> str:
        operands = self.document.setdefault("operands", {})
        name = f"{op.classes}_{len(operands) + 1}a"
        operands[name] = {"kind": "row", "dtype": "int64"}
        return name


def _in_float32(declared: Any, place: int) -> Any:
    """Return the declaration of an operand, every second one of float32 if it is not full."""
    narrow = declared in ("row", "col", "channel", "scalar")
    return {"kind": declared, "dtype": "float32"} if narrow and place % 2 else declared


_GATES = ("glu", "geglu", "swiglu", "reglu")
#: Formulas of so many parts.
_PARTED = {
    2: "softplus({0}) * tanh({1})",
    3: "{0} * sigmoid({1}) + {2}",
    4: "sigmoid({0}) * tanh({2}) - {1} * {3}",
    5: "{0} * {1} + erf({2} - {3}) * sigmoid({4})",
}


def _named(step: Any) -> tuple[str, Any]:
    if isinstance(step, str):
        return step, None
    return next(iter(step.items()))


def size(shape: tuple[int, ...]) -> int:
    """Return how many elements a shape has."""
    return math.prod(shape)
