"""Operands of bool: masked_fill, where and formulas with a mask, against torch's own functions."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from random_programs.build import build_specs
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jvp, vmap

from fusegen import load

SPECS = {
    "attention": """
        operands: {mask: {kind: full, dtype: bool}}
        chain:
          - dropout: {name: drop}
          - masked_fill: {mask: mask, value: -inf}
          - softmax
        """,
    "choices": """
        operands:
          mask: {kind: full, dtype: bool}
          rows: {kind: row, dtype: bool}
          cols: {kind: col, dtype: bool}
          other: full
        chain:
          - expr: "where(mask, x * other, x - other)"
          - where: {condition: rows, other: other}
          - masked_fill: {mask: cols, value: -1e9}
          - tanh
        """,
}

Function = Callable[..., Tensor]


def attention(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(mask, -torch.inf).softmax(-1)


def choices(x: Tensor, mask: Tensor, rows: Tensor, cols: Tensor, other: Tensor) -> Tensor:
    chosen = torch.where(rows, torch.where(mask, x * other, x - other), other)
    return chosen.masked_fill(cols, -1e9).tanh()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    folder = tmp_path_factory.mktemp("masks")
    for name, text in SPECS.items():
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
    paths = [folder / f"{name}.yaml" for name in SPECS]
    build_specs(paths, folder / "out", dtypes=("float64", "bfloat16"))
    return {name: load(name, folder / "out") for name in SPECS}


def case(name: str, *, broadcast: bool = False) -> tuple[Function, Tensor, list[Tensor]]:
    """Return torch's function, x and the operands; no row is masked as a whole."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    causal = torch.ones(4, 5, dtype=torch.bool).triu(1)
    mask = causal if broadcast else causal.expand(2, 3, 4, 5).contiguous()
    if name == "attention":
        return attention, x, [mask]
    rows = torch.rand(2, 3, 4, 1, generator=generator) < 0.5
    cols = torch.rand(5, generator=generator) < 0.5
    other = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    return choices, x, [mask, rows[:, :1] if broadcast else rows, cols, other]


def close(got: object, wanted: object) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("broadcast", [False, True], ids=["same", "broadcast"])
@pytest.mark.parametrize("name", SPECS)
def test_values_and_derivatives(
    name: str, broadcast: bool, packages: dict[str, ModuleType]
) -> None:
    eager, x, operands = case(name, broadcast=broadcast)
    options = {"training": False} if name == "attention" else {}

    def fused(*given: Tensor) -> Tensor:
        result: Tensor = packages[name].apply(*given, **options)
        return result

    leaves = [t.requires_grad_() for t in (x, *operands) if t.is_floating_point()]
    got, wanted = fused(x, *operands), eager(x, *operands)
    close(got, wanted)
    along = torch.randn_like(wanted)
    close(torch.autograd.grad(got, leaves, along), torch.autograd.grad(wanted, leaves, along))
    assert gradcheck(fused, (x, *operands))
    assert gradgradcheck(fused, (x, *operands))
    given = [x.detach(), *(t.detach() for t in operands)]
    batch = [torch.stack([t, t.flip(0)]) for t in given]
    close(vmap(fused)(*batch), vmap(eager)(*batch))
    tangent = (torch.randn_like(x),)
    assert torch.equal(given[1], operands[0])
    close(
        jvp(lambda x: fused(x, *given[1:]), (given[0],), tangent),
        jvp(lambda x: eager(x, *given[1:]), (given[0],), tangent),
    )


def test_a_row_that_is_masked_as_a_whole(packages: dict[str, ModuleType]) -> None:
    """Its softmax is NaN and its gradient 0, as in torch; other rows are unharmed."""
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[1] = True
    got, wanted = packages["attention"].apply(x, mask, training=False), attention(x, mask)
    assert wanted[1].isnan().all()
    torch.testing.assert_close(got, wanted, equal_nan=True)
    along = torch.randn(3, 5, dtype=torch.float64)
    slopes = [torch.autograd.grad(value, x, along)[0] for value in (got, wanted)]
    torch.testing.assert_close(slopes[0], slopes[1])


def test_what_is_masked_has_no_influence(packages: dict[str, ModuleType]) -> None:
    """Neither an infinite value nor NaN gets through a mask, and its gradient is 0."""
    x = torch.randn(3, 5, dtype=torch.float64)
    x[0, 1], x[1, 1], x[2, 1] = torch.inf, torch.nan, -torch.inf
    x.requires_grad_()
    mask = torch.zeros(5, dtype=torch.bool)
    mask[1] = True
    got, wanted = packages["attention"].apply(x, mask, training=False), attention(x, mask)
    torch.testing.assert_close(got, wanted)
    along = torch.randn(3, 5, dtype=torch.float64)
    slopes = [torch.autograd.grad(value, x, along)[0] for value in (got, wanted)]
    torch.testing.assert_close(slopes[0], slopes[1])
    assert slopes[0].isfinite().all()


def test_a_mask_gets_no_gradient(packages: dict[str, ModuleType]) -> None:
    for name, count in (("attention", 1), ("choices", 3)):
        assert packages[name].apply.__doc__.count("], bool; it gets no gradient.") == count


@pytest.mark.parametrize("hooked", [False, True], ids=["fused", "stepwise"])
def test_the_module(hooked: bool, packages: dict[str, ModuleType]) -> None:
    module = packages["attention"].Module().eval()
    if hooked:
        module.drop.register_forward_hook(lambda *_: None)
    _, x, operands = case("attention", broadcast=True)
    for dtype in (torch.float64, torch.bfloat16):
        torch.testing.assert_close(
            module(x.to(dtype), *operands), attention(x.to(dtype), *operands), rtol=1e-2, atol=1e-2
        )


def test_torch_compile_and_export(packages: dict[str, ModuleType]) -> None:
    torch.compiler.reset()
    eager, x, operands = case("choices", broadcast=True)
    apply, module = packages["choices"].apply, packages["choices"].Module()
    compiled = torch.compile(apply, fullgraph=True, backend="aot_eager")
    close(compiled(x, *operands), eager(x, *operands))
    program = torch.export.export(module, (x, *operands))
    close(program.module()(x, *operands), eager(x, *operands))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8])
def test_only_bool_is_taken(dtype: torch.dtype, packages: dict[str, ModuleType]) -> None:
    x = torch.ones(3, 5, dtype=torch.float64)
    message = f"attention: mask: expected bool, got {str(dtype).removeprefix('torch.')}"
    with pytest.raises(TypeError, match=message):
        packages["attention"].apply(x, x.to(dtype), training=False)
    with pytest.raises(ValueError, match=r"mask: expected shape \(3, 5\) .*got \(3,\)"):
        packages["attention"].apply(x, torch.ones(3, dtype=torch.bool), training=False)
    with pytest.raises(TypeError, match="x: expected a tensor, got float"):
        packages["attention"].apply(1.0, torch.ones(3, dtype=torch.bool), training=False)


def test_a_mask_as_a_number_is_refused(packages: dict[str, ModuleType]) -> None:
    _, x, (mask, rows, cols, other) = case("choices")
    message = "other: expected float64 as x has, got bool; a mask is declared with `dtype: bool`"
    with pytest.raises(TypeError, match=message):
        packages["choices"].apply(x, mask, rows, cols, other > 0)
