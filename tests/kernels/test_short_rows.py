"""Rows of few columns, of which the CPU turns tiles: each width at which it chooses, against float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from conftest import DEVICES, dtype_name
from shared.chains_of_texts import Built, built_texts, hold_each_shape

#: Between them: maxima, sums, what a row keeps, sums of columns and of everything, random numbers, elements
#: taken by an index, halves, neighbours that alternate, and dropped columns.
TEXTS = {
    "short_dropout": "order: 1\nchain: [{dropout: {p: 0.3}}, softmax, {mul: 2.0}]\n",
    "short_norm": "order: 2\noperands: {w: col, b: col, r: row}\n"
    "chain: [gelu, {layer_norm: {weight: w, bias: b}}, {mul: r}]\n",
    "short_loss": "order: 1\noperands: {t: {kind: row, dtype: int64}}\n"
    "chain: [{mul: 1.5}, {cross_entropy: {target: t}}]\n",
    "short_gate": "order: 1\nchain: [swiglu, {rms_norm: {eps: 1.0e-6}}]\n",
    "short_sum": "order: 1\noperands: {s: scalar}\n"
    "chain: [{mul: s}, {logsumexp: {dim: -1, keepdim: false}}]\n",
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: Around vectors of 8, 16 and 32 numbers, and around tiles of 64 rows and tasks of 16 tiles.
COLS = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 47, 63, 65, 100, 127, 129)
ROWS = (1, 2, 63, 64, 65, 1025)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    names = [dtype_name(dtype) for dtype in DTYPES]
    return built_texts(tmp_path_factory, "short_rows", TEXTS, dict.fromkeys(TEXTS, names))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("name", TEXTS)
def test_short_rows(built: dict[str, Built], name: str, dtype: torch.dtype, device: str) -> None:
    shapes = [(65, c * (2 if name == "short_gate" else 1)) for c in COLS]
    hold_each_shape(built[name], shapes + [(r, 6) for r in ROWS], dtype, device)


@pytest.mark.parametrize("name", ["short_norm", "short_gate"])
def test_short_rows_that_lie_apart(built: dict[str, Built], name: str) -> None:
    """Slices of wider rows have gaps before each row; the results are those of a copy, to the last bit."""
    _, package = built[name]
    for rows, cols in product((3, 70), (2, 6, 30)):
        wide = torch.randn(rows, cols + 5, generator=torch.Generator().manual_seed(7))
        operands = [torch.rand(cols), torch.rand(cols), torch.rand(rows, 1)]
        given = operands if name == "short_norm" else []
        results = []
        for x in (wide[:, 3 : 3 + cols], wide[:, 3 : 3 + cols].clone()):
            leaf = x.detach().requires_grad_()
            y = package.apply(leaf, *given)
            results.append((y, torch.autograd.grad(y, leaf, torch.ones_like(y))[0]))
        for part, whole in zip(*results, strict=True):
            assert torch.equal(part, whole)
