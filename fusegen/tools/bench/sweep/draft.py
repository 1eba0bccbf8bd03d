"""A spec while it is drawn: its steps and operands, and the pools of steps without a reduction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

#: A step as YAML has it.
Step = str | dict[str, Any]

#: Functions of x alone. None has a jump, so a rounded argument never gives a far result.
_UNARY: tuple[Step, ...] = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "sigmoid", "swish", "tanh", "gelu", "mish"),
    *("quick_gelu", "softplus", "softsign", "hardsigmoid", "hardswish", "hardtanh", "log_sigmoid"),
    *("tanhshrink", "softshrink", "abs", "sin"),
    {"gelu": {"approximate": "tanh"}},
    {"leaky_relu": {"negative_slope": 0.2}},
    {"celu": {"alpha": 1.5}},
    {"clamp": {"min": -1.5, "max": 2.0}},
    {"expr": "x * tanh(softplus(x))"},
    {"expr": "0.5 * x * (1 + erf(0.70710678 * x))"},
    {"expr": "x * exp(-abs(x))"},
    {"expr": "log1p(abs(x)) * sigmoid(x)"},
    {"expr": "x**2 / (1 + abs(x))"},
    {"expr": "x * rsqrt(1 + x**2)"},
)
#: Ops with one operand, which is positive.
_BINARY = ("add", "add", "mul", "mul", "sub", "rsub", "div", "maximum", "minimum")
#: Formulas with operands.
_FORMULAS = (
    "x * sigmoid({a})",
    "x + {a} * tanh(x)",
    "sqrt(x**2 + {a})",
    "x * sigmoid({a} * x)",
    "x * (1 + {a}) + {b}",
    "{a} * x / (1 + abs(x)) + {b}",
    "{a} * softplus(x) - {b} * x",
    "gelu(x) * {a} + {b}",
)
_NUMBERS = (0.5, 0.125, 1.5, 2.0, 0.3, -0.7)


class Draft:
    """A spec's steps and operands so far.

    Args:
        rng: draws them.
        rank: the dims of x, or 0 for any number.
        kinds: the kinds that its operands may have, repeated by how often they are drawn.
    """

    def __init__(self, rng: random.Random, rank: int, kinds: Sequence[str]) -> None:
        self.rng, self.rank = rng, rank
        self.kinds = list(kinds)
        self.arguments: dict[str, Any] = {}
        self.operands: dict[str, Any] = {}
        self.steps: list[Step] = []
        self.broadcastable: list[str] = []  # the full operands that may be passed smaller
        self.input = True  # whether `input` has the shape of what reaches the next step

    def operand(self, kind: str, **more: Any) -> str:
        """Declare an operand, and return its name."""
        count = 1 + sum(name.rstrip("0123456789") == kind for name in self.operands)
        name = f"{kind}{count}"
        self.operands[name] = {"kind": kind, **more} if more else kind
        return name

    def any_operand(self) -> str:
        """Return the name of a new operand of any kind that is allowed here."""
        kind = self.rng.choice(self.kinds)
        name = self.operand(kind)
        if kind == "full":
            self.broadcastable.append(name)
        return name

    def add(self, *steps: Step) -> None:
        """Add steps."""
        self.steps += steps

    def pointwise(self, least: int, most: int) -> None:
        """Add steps that reduce nothing: from `least` to `most`."""
        for _ in range(self.rng.randint(least, most)):
            self._one()

    def unary(self, least: int, most: int) -> None:
        """Add functions of x alone: from `least` to `most`."""
        for _ in range(self.rng.randint(least, most)):
            self.add(self._other_than_last(_UNARY))

    def _one(self) -> None:
        draw = self.rng.random()
        if draw < 0.5:
            self.unary(1, 1)
        elif draw < 0.62:
            self.add({self.rng.choice(("add", "mul")): self.rng.choice(_NUMBERS)})
        elif draw < 0.68 and self.input and self.steps:
            self.add({"add": "input"})
        elif draw < 0.84:
            self.add({self.rng.choice(_BINARY): self.any_operand()})
        else:
            text = self.rng.choice(_FORMULAS)
            names = {n: self.any_operand() for n in ("a", "b") if f"{{{n}}}" in text}
            self.add({"expr": text.format(**names)})

    def _other_than_last(self, pool: Sequence[Step]) -> Step:
        """Return a step that is not the one before again: relu of relu is no work."""
        while True:
            step = self.rng.choice(pool)
            if not self.steps or step != self.steps[-1]:
                return dict(step) if isinstance(step, dict) else step

    def document(self, dtypes: Sequence[str]) -> dict[str, Any]:
        """Return the spec."""
        found: dict[str, Any] = {"order": 1, "dtypes": list(dtypes)}
        if self.rank:
            found["dims"] = self.rank
        if self.arguments:
            found["arguments"] = self.arguments
        if self.operands:
            found["operands"] = self.operands
        return {**found, "chain": self.steps}
