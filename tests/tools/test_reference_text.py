"""The reference of a formula is computed from its text, whatever sympy makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sympy as sp
import torch
from torch import Tensor
from torch.nn import functional

from fusegen import spec
from fusegen.chain import derive
from fusegen.tools.check.compare import Comparison, make_case
from fusegen.tools.check.reference import run_chain
from fusegen.tools.check.reference_text import value_of_text

X = torch.linspace(-3, 3, 60, dtype=torch.float64).reshape(3, 4, 5)
W = torch.linspace(0.5, 2, 5, dtype=torch.float64)


def test_a_formula_that_was_changed_is_found() -> None:
    """As when sympy wrote a mask out: what the programs lose, the reference keeps."""
    parsed = spec.parse("operands: {m: full}\nchain:\n  - expr: x + (1 - m) * -1e9\n", "mask")
    x, m = (sp.Symbol(name, real=True) for name in ("x", "m"))
    wrong = replace(parsed.steps[0], formula=x + 1e9 * m - 1e9 + 0.5)
    chain = derive(replace(parsed, steps=(wrong,)))
    case = make_case(chain, (4, 6), training=False)
    case.operands["m"].fill_(1.0)
    comparison = Comparison(chain, case, torch.float32)
    assert torch.equal(comparison.truth()[0], comparison.given["x"].double())


#: Formulas, the dims of their rows, and what they are by torch.
TEXTS = [
    ("2**3 * x - -x / 4 + pi", (-1,), 8 * X + X / 4 + torch.pi),
    ("rsqrt(exp(x)) + detach(x)", (-1,), torch.rsqrt(X.exp()) + X),
    ("x * s + where(x > s, 1, w)", (-1,), X * 0.5 + torch.where(X > 0.5, 1.0, W)),
    ("where(w, x, 10**30)", (-1,), X),
    ("x - mean(x)", (-3, -2), X - X.mean((-3, -2), keepdim=True)),
    ("max(x) + min(x) * x", (-2,), X.amax(-2, True) + X.amin(-2, True) * X),
    ("softmax(x)", (-2,), X.softmax(-2)),
    ("softmax(x)", (-2, -1), X.flatten(1).softmax(-1).reshape(X.shape)),
    ("log_softmax(x) + std(x)", (-1,), X.log_softmax(-1) + X.std(-1, keepdim=True)),
    ("norm(x, p=1) + norm(x)", (-1,), X.norm(1, -1, True) + X.norm(2, -1, True)),
    ("sum(x) + x", (), X + X),
    ("gelu(x, approximate='tanh')", (-1,), functional.gelu(X, approximate="tanh")),
    ("clamp(x, min=-s, max=v)", (-1,), X.clamp(-0.5, 2.0)),
    ("layer_norm(x, w, eps=s)", (-1,), functional.layer_norm(X, (5,), W, None, 0.5)),
    ("layer_norm(x, one)", (-1,), functional.layer_norm(X, (5,)) * W[1]),
    ("rms_norm(x, row, eps=s)", (-1,), functional.rms_norm(X, (5,), None, 0.5) * X[..., :1]),
    ("swish(x, beta=1.5)", (-1,), X * torch.sigmoid(1.5 * X)),
    ("mse_loss(x, w, reduction=none)", (-1,), (X - W).square()),
]


@pytest.mark.parametrize(("text", "columns", "wanted"), TEXTS)
def test_text_by_torch(text: str, columns: tuple[int, ...], wanted: Tensor) -> None:
    found = value_of_text(
        text, {"x": X, "w": W, "one": W[1], "row": X[..., :1]}, {"s": 0.5, "v": 2.0}, columns
    )
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


def test_a_formula_of_parts_by_its_text() -> None:
    parsed = spec.parse("chain:\n  - expr: {formula: a * tanh(c), parts: [a, _, c]}\n", "parts")
    x = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(2, 12)
    torch.testing.assert_close(run_chain(parsed, x, {}, {}), x[:, :4] * x[:, 8:].tanh())
