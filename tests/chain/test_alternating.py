"""Gates whose value and gate alternate by column: torch's results, no copies, and errors with a remedy."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, dtypes_on_devices
from shared.chains_of_texts import built_texts, hold_each_shape
from shared.derivatives import drawn, hold_third_derivative
from torch import Tensor
from torch.nn import functional as F

from fusegen.base.errors import SpecError
from fusegen.chain import Chain, derive
from fusegen.spec import parse
from fusegen.tools.check import verify

TEXTS = {
    # GPT-OSS: the gate has the even columns, and both are clamped.
    "alternating_clamped": (
        "order: 3\nchain:\n  - expr:\n      parts: [gate, up]\n      alternating: true\n"
        '      formula: "(clamp(up, min=-7, max=7) + 1) * swish(clamp(gate, max=7), beta=1.702)"\n'
    ),
    # A bias of both halves before the gate, and a norm of the row after it.
    "alternating_normed": (
        "order: 1\narguments: {in_features: int, out_features: int}\n"
        "chain:\n  - linear\n  - swiglu: {alternating: true, gate_first: true}\n  - softmax\n"
    ),
    # An element of each row of both halves, by its index.
    "alternating_classes": (
        "order: 1\noperands: {target: {kind: row, dtype: int64}}\nchain:\n"
        "  - geglu: {alternating: true}\n  - cross_entropy: target\n"
    ),
    # Rows of the channels: the gate is a segment of its own.
    "alternating_apart": (
        "dims: 3\norder: 1\nchain:\n  - reglu: {alternating: true}\n  - softmax: {dim: 1}\n"
    ),
}
SHAPES = {
    "alternating_clamped": [(2,), (1, 2), (3, 66), (31, 64), (2, 3, 96), (5, 8198)],
    "alternating_normed": [(1, 2), (3, 66), (31, 64), (5, 8198), (2, 40006)],
    "alternating_classes": [(3, 66), (31, 64), (5, 8198)],
    "alternating_apart": [(1, 1, 2), (2, 5, 14), (3, 4, 64)],
}
DTYPES = dict.fromkeys(TEXTS, ("float64", "bfloat16"))
Built = dict[str, tuple[Chain, ModuleType]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Gives the chain and the built package of each spec."""
    return built_texts(tmp_path_factory, "alternating", TEXTS, DTYPES)


def gpt_oss(x: Tensor) -> Tensor:
    """As transformers has it."""
    gate, up = x[..., ::2], x[..., 1::2]
    gate, up = gate.clamp(max=7), up.clamp(-7, 7)
    return (up + 1) * (gate * torch.sigmoid(gate * 1.702))


@pytest.mark.parametrize(("name", "dtype", "device"), dtypes_on_devices(TEXTS, DTYPES))
def test_every_shape(name: str, dtype: torch.dtype, device: str, built: Built) -> None:
    hold_each_shape(built[name], SHAPES[name], dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TEXTS)
def test_gradcheck(name: str, device: str, built: Built) -> None:
    chain, package = built[name]
    verify.gradcheck(package, chain, training=False, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_it_is_what_gpt_oss_computes_to_the_third_derivative(device: str, built: Built) -> None:
    _, package = built["alternating_clamped"]
    hold_third_derivative(package.apply, gpt_oss, [4 * drawn(5, 34, device=device)], atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
def test_a_bias_of_both_halves(device: str, built: Built) -> None:
    _, package = built["alternating_normed"]
    found = []
    for fused in (True, False):
        x, weight = drawn(5, 7, device=device), drawn(18, 7, device=device, seed=1)
        leaves = [x, weight, drawn(18, device=device, seed=2)]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        if fused:
            value = package.apply(F.linear(*leaves[:2]), leaves[2])
        else:
            product = F.linear(*leaves)
            value = (F.silu(product[..., ::2]) * product[..., 1::2]).softmax(-1)
        found.append((value, *torch.autograd.grad(value.square().sum(), leaves)))
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_neither_half_is_copied(built: Built) -> None:
    _, package = built["alternating_clamped"]
    x = drawn(2, 31, 3, 64).transpose(1, 2).requires_grad_()
    cotangent = drawn(2, 31, 3, 32, seed=1).transpose(1, 2)
    with torch.profiler.profile() as profile:
        torch.autograd.grad(package.apply(x), x, cotangent)
    names = {event.key for event in profile.key_averages()}
    copies = {"contiguous", "clone", "copy_", "cat", "slice", "stack"}
    assert not names & {f"aten::{copy}" for copy in copies}


@pytest.mark.parametrize("columns", [6, 70])
def test_columns_that_are_not_adjacent_are_copied(columns: int, built: Built) -> None:
    """Of a matrix that is transposed, or of a slice with a step."""
    _, package = built["alternating_clamped"]
    for x in (drawn(columns, 5).T, drawn(5, 2 * columns)[:, ::2], drawn(1, columns).expand(5, -1)):
        torch.testing.assert_close(package.apply(x), gpt_oss(x))


def test_rows_of_another_dim_are_a_segment_of_their_own() -> None:
    chain = derive(parse(TEXTS["alternating_apart"], "alternating_apart"))
    assert [len(segment.steps) for segment in chain.segments] == [1, 1]


def test_an_odd_size_is_refused(built: Built) -> None:
    _, package = built["alternating_clamped"]
    message = "expected two halves along dim -1, got shape (3, 5); an even size is needed there"
    with pytest.raises(ValueError, match=re.escape(message)):
        package.apply(drawn(3, 5))


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (
            "glu: {alternating: true, dim: 1}",
            "glu is alternating along the last dim alone, and its dim is 1",
        ),
        ("glu: {alternating: true, gate: g}", "glu takes alternating for the halves of one tensor"),
        (
            "expr: {formula: x * g, alternating: true}",
            "'alternating' says where two parts of x are: name them, as in parts: [gate, up]",
        ),
        (
            "expr: {formula: a * b * g, parts: [a, b], alternating: 2}",
            "'alternating' of expr must be true or false, not 2",
        ),
    ],
)
def test_a_chain_that_cannot_be_is_refused(chain: str, message: str) -> None:
    text = f"dims: 4\noperands: {{g: full}}\nchain:\n  - {chain}\n"
    with pytest.raises(SpecError, match=re.escape(message)):
        parse(text, "it")
