"""Random formulas that call ops and choose by masks."""

from __future__ import annotations

from random_programs.formula_text import Formulas

_CALLS = (
    "gelu({0})",
    "gelu({0}, approximate='tanh')",
    "clamp({0}, min=-1, max=1.5)",
    "swish({0}, beta=1.5)",
    "leaky_relu({0}, negative_slope=0.2)",
    "lerp({0}, {1}, 0.25)",
    "minimum({0}, {1})",
    "softplus({0}, beta=2)",
    "mse_loss({0}, {1}, reduction='none')",
    "hardtanh({0}, max_val=0.5)",
)
_CALLS_OF_ROWS = (
    "layer_norm({0}, eps=0.01)",
    "rms_norm({0}, eps=0.01)",
    "normalize({0})",
    "norm({0}, p=1) * x",
)


class FormulaOfValues(Formulas):
    """Draws a formula for a step of named values, as `Formulas` does for one of an activation."""

    def __init__(self, draft: object) -> None:
        super().__init__(draft, rows=True)  # type: ignore[arg-type] # it draws operands as the other does

    def _term(self, depth: int) -> str:
        rng = self.rng
        draw = rng.random()
        if depth == 0 or draw > 0.35:
            return super()._term(depth)
        a, b = self._term(depth - 1), self._term(depth - 1)
        if draw < 0.05:
            mask = self.draft.operand_like(self.draft.here, bool)  # type: ignore[attr-defined]
            return f"where({mask}, {a}, {b})"
        some = _CALLS if draw < 0.25 else _CALLS_OF_ROWS
        return rng.choice(some).format(f"({a})" if a.startswith("-") else a, b)
