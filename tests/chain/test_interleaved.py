"""Rotary position embedding of neighbours, and of a part of each row: torch's results, to any order."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, dtypes_on_devices
from shared.chains_of_texts import built_texts, hold_each_shape
from shared.derivatives import drawn, hold_third_derivative, hold_values_and_second_derivative
from torch import Tensor
from torch.nn import functional as F

from fusegen.base.errors import SpecError
from fusegen.chain import Chain, derive
from fusegen.spec import parse
from fusegen.tools.check import verify

TABLES = "cos: {kind: full, gradient: false}, sin: {kind: full, gradient: false}"
TEXTS = {
    # The tables have gradients too.
    "interleaved_formula": (
        "order: 3\noperands: {cos: full, sin: full}\n"
        'chain:\n  - expr: "x * cos + rotate_half(x, interleaved=true) * sin"\n'
    ),
    # A norm of the whole row before it, a residual after it, and tables with a number for each pair.
    "interleaved_partial": (
        f"dims: 4\noperands: {{residual: full, weight: {{kind: col, dtype: float32}}, {TABLES}}}\n"
        "outputs: [total, turned]\nchain:\n"
        "  - add: {other: residual, name: total}\n"
        "  - rms_norm: {weight: weight, eps: 1e-6}\n"
        "  - expr:\n      name: turned\n      formula: rope(x, cos, sin, interleaved=true, "
        "partial_rotary_factor=0.5, per_pair=true) + total\n"
    ),
    # Parts of 80 columns as in Phi-2; tables as wide as what is turned.
    "partial_halves": (
        f"order: 1\noperands: {{{TABLES}}}\n"
        "chain: [rope: {cos: cos, sin: sin, partial_rotary_factor: 0.4}]\n"
    ),
    # Operands of columns in kernels that sum them, and steps that cut rows in other ways.
    "interleaved_apart": (
        "order: 1\noperands: {cos: col, sin: col, scale: col}\nchain:\n"
        "  - rope: {cos: cos, sin: sin, interleaved: true}\n"
        "  - mul: scale\n"
        "  - rotate_half\n"
    ),
}
SHAPES = {
    "interleaved_formula": [(2,), (1, 2), (31, 6), (33, 66), (1023, 64), (2, 3, 5, 128), (5, 8198)],
    "interleaved_partial": [
        *((1, 1, 1, 4), (3, 2, 33, 12), (2, 3, 31, 64), (1, 3, 5, 68)),
        *((1, 2, 1, 8196), (1, 1, 1, 40004)),  # rows that a block and a cluster hold
    ],
    "partial_halves": [(5,), (1, 5), (31, 15), (33, 80), (2, 3, 5, 320)],
    "interleaved_apart": [(1, 2), (31, 6), (33, 66), (7, 512)],
}
#: One library holds them all: torch's headers are read once.
DTYPES = dict.fromkeys(TEXTS, ("float64", "bfloat16"))
Built = dict[str, tuple[Chain, ModuleType]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Gives the chain and the built package of each spec."""
    return built_texts(tmp_path_factory, "interleaved", TEXTS, DTYPES)


def rotate_every_two(x: Tensor) -> Tensor:
    """As transformers has it for GPT-J."""
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def rotate_half(x: Tensor) -> Tensor:
    middle = x.shape[-1] // 2
    return torch.cat((-x[..., middle:], x[..., :middle]), -1)


def interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + rotate_every_two(x) * sin


@pytest.mark.parametrize(("name", "dtype", "device"), dtypes_on_devices(TEXTS, DTYPES))
def test_every_shape(name: str, dtype: torch.dtype, device: str, built: Built) -> None:
    hold_each_shape(built[name], SHAPES[name], dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TEXTS)
def test_gradcheck(name: str, device: str, built: Built) -> None:
    chain, package = built[name]
    verify.gradcheck(package, chain, training=False, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("table", [(5, 6), (2, 1, 5, 6), (2, 3, 5, 6)])
def test_it_is_what_models_compute_to_the_third_derivative(
    table: tuple[int, ...], device: str, built: Built
) -> None:
    """Of heads that come after the length in memory, with tables that broadcast."""
    _, package = built["interleaved_formula"]
    x = drawn(2, 5, 3, 6, device=device).transpose(1, 2)
    tables = drawn(2, *table, device=device, seed=1).unbind()
    hold_third_derivative(package.apply, interleaved, (x, *tables))


@pytest.mark.parametrize("device", DEVICES)
def test_neighbours_of_a_part_after_a_norm_are_one_kernel(device: str, built: Built) -> None:
    chain, package = built["interleaved_partial"]
    assert len(chain.segments) == 1
    x, residual = drawn(2, 2, 5, 3, 12, device=device).transpose(2, 3).unbind()
    weight = drawn(12, device=device, seed=1)
    cos, sin = drawn(2, 5, 3, device=device, seed=2).unbind()

    def torchs(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        total = x + residual
        first, rest = F.rms_norm(total, (12,), weight, 1e-6).split((6, 6), -1)
        tables = (t.repeat_interleave(2, -1) for t in (cos, sin))
        return total, torch.cat((interleaved(first, *tables), rest), -1) + total

    def ours(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = package.apply(x, residual, weight, cos, sin)
        return result

    hold_values_and_second_derivative(ours, torchs, (x, residual, weight))


@pytest.mark.parametrize("device", DEVICES)
def test_the_rest_of_a_row_passes(device: str, built: Built) -> None:
    """In [batch, length, heads, columns], whose tables have a dim of size 1 for the heads."""
    _, package = built["partial_halves"]
    x = drawn(2, 7, 3, 80, device=device).requires_grad_()
    cos, sin = drawn(2, 7, 1, 32, device=device, seed=1).unbind()
    first, rest = x.split((32, 48), -1)
    wanted = torch.cat((first * cos + rotate_half(first) * sin, rest), -1)
    got = package.apply(x, cos, sin)
    torch.testing.assert_close(got, wanted)
    assert torch.equal(got[..., 32:], rest)
    cotangent = drawn(2, 7, 3, 80, device=device, seed=2)
    gradients = (torch.autograd.grad(value, x, cotangent)[0] for value in (got, wanted))
    torch.testing.assert_close(*gradients)


def test_nothing_is_copied_or_joined(built: Built) -> None:
    """Neither heads after the length, nor tables that broadcast, nor the parts of the result."""
    for name, widths in {"interleaved_formula": (64, 64), "partial_halves": (80, 32)}.items():
        _, package = built[name]
        x = drawn(2, 31, 3, widths[0]).transpose(1, 2).requires_grad_()
        cos, sin = drawn(2, 31, widths[1], seed=1).unbind()
        cotangent = drawn(2, 31, 3, widths[0], seed=2).transpose(1, 2)
        with torch.profiler.profile() as profile:
            torch.autograd.grad(package.apply(x, cos, sin), x, cotangent)
        names = {event.key for event in profile.key_averages()}
        copies = {"contiguous", "clone", "copy_", "cat", "stack"}
        assert not names & {f"aten::{copy}" for copy in copies}, name


@pytest.mark.parametrize("name", ["interleaved_formula", "partial_halves"])
def test_compiled_it_has_the_strides_of_x(name: str, built: Built) -> None:
    _, package = built[name]
    for width in (10, 70, 320):
        x = drawn(2, 5, 3, width).transpose(1, 2).requires_grad_()
        tables = drawn(2, 5, width if name == "interleaved_formula" else width // 5 * 2, seed=1)
        compiled = torch.compile(
            lambda x, *tables: package.apply(x, *tables) * 2, backend="aot_eager", fullgraph=True
        )
        got, wanted = compiled(x, *tables), 2 * package.apply(x, *tables)
        torch.testing.assert_close(got, wanted)
        assert got.stride() == wanted.stride() == x.stride()
        torch.testing.assert_close(
            *(torch.autograd.grad(v.square().sum(), x)[0] for v in (got, wanted))
        )


def test_transforms_see_torchs_function(built: Built) -> None:
    """vmap over x, forward mode, and a Hessian."""
    _, package = built["interleaved_formula"]
    x, (cos, sin) = drawn(3, 4, 10), drawn(2, 4, 10, seed=1).unbind()
    for transformed in (
        lambda f: torch.func.vmap(f)(x),
        lambda f: torch.func.jvp(f, (x[0],), (x[1],)),
        lambda f: torch.func.hessian(lambda t: f(t).square().sum())(x[0]),
    ):
        got = transformed(lambda t: package.apply(t, cos, sin))
        torch.testing.assert_close(got, transformed(lambda t: interleaved(t, cos, sin)))


def test_steps_that_cut_rows_in_other_ways_are_segments_of_their_own() -> None:
    chain = derive(parse(TEXTS["interleaved_apart"], "interleaved_apart"))
    assert [segment.layout.partition for segment in chain.segments] == [(2, True), (2, False)]


@pytest.mark.parametrize(
    ("name", "shape", "table", "message"),
    [
        (
            "interleaved_formula",
            (3, 5),
            (3, 5),
            "expected two halves along dim -1, got shape (3, 5)",
        ),
        ("partial_halves", (3, 6), (3, 2), "expected 5 parts of one width along dim -1, got shape"),
        ("partial_halves", (3, 10), (3, 10), "expected shape (3, 4) for x of shape (3, 10), got"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    name: str, shape: tuple[int, ...], table: tuple[int, ...], message: str, built: Built
) -> None:
    _, package = built[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        package.apply(drawn(*shape), drawn(*table), drawn(*table))


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (
            "rope: {cos: a, sin: b, partial_rotary_factor: 0.7}",
            "2 / partial_rotary_factor must be a whole number from 2 to 16",
        ),
        (
            'expr: "rope(x, a, b, partial_rotary_factor=0.01)"',
            "2 / partial_rotary_factor must be a whole number from 2 to 16",
        ),
        (
            'expr: "rotate_half(x) * a + rotate_half(x, interleaved=true) * b"',
            "the formula cuts a row in two ways",
        ),
        (
            'expr: "rope(x, a, b, partial_rotary_factor=0.5) * b"',
            "'b' is as wide as x for one step, and as a part of it for another",
        ),
    ],
)
def test_a_chain_that_cannot_be_is_refused(chain: str, message: str) -> None:
    operand = "{kind: full, gradient: false}"
    text = f"operands: {{a: {operand}, b: {operand}}}\nchain:\n  - {chain}\n"
    with pytest.raises(SpecError, match=re.escape(message)):
        derive(parse(text, "it"))
