"""max and min over a dim: the value alone forward, the gradient to the first of equal ones, as in torch."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from shared.chains_of_texts import Built, built_texts
from torch import Tensor

from fusegen.chain import derive
from fusegen.program import Reduce
from fusegen.spec import parse

TEXTS = {
    name: f"order: 2\ndims: 3\nchain: [{{mul: 1.5}}, {{{name}: {{dim: 1}}}}]\n"
    for name in ("max", "min")
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    texts = {f"first_{name}": text for name, text in TEXTS.items()}
    return built_texts(
        tmp_path_factory, "first", texts, dict.fromkeys(texts, ("float64", "float32"))
    )


@pytest.mark.parametrize("name", TEXTS)
def test_the_forward_pass_only_reduces(name: str) -> None:
    """Which element it was is found in the backward pass."""
    forward, backward = derive(parse(TEXTS[name], name)).segments[0].modes[0].programs[:2]
    assert sum(isinstance(v, Reduce) for v in forward.nodes()) == 1
    assert [v.name for v in forward.saved] == [f"{name}_max"]
    assert sum(isinstance(v, Reduce) for v in backward.nodes()) == 2


def torch_first(name: str, x: Tensor) -> Tensor:
    values: Tensor = getattr(torch, name)(x * 1.5, 1).values
    return values


@pytest.mark.parametrize("name", TEXTS)
def test_ties_zeros_infinities_and_nan(name: str, built: dict[str, Built]) -> None:
    package: ModuleType = built[f"first_{name}"][1]
    rows = torch.tensor(
        [
            [1.0, 2.0, 2.0, -3.0, -3.0],
            [0.0, -0.0, 0.0, -0.0, 0.0],
            [-0.0, 0.0, 0.0, 0.0, -0.0],
            [torch.inf, 1.0, torch.inf, -torch.inf, -torch.inf],
            [-torch.inf] * 5,
        ]
    )
    x = torch.stack([rows.T, rows.T.flip(0)], -1).permute(1, 0, 2).contiguous()  # [5, 5, 2]
    for dtype in (torch.float32, torch.float64):
        found = []
        for function in (package.apply, lambda t: torch_first(name, t)):
            given = x.to(dtype, copy=True).requires_grad_()
            y = function(given)
            (gradient,) = torch.autograd.grad(y, given, torch.arange(1.0, 11).view(5, 2).to(dtype))
            found.append((y.detach(), gradient))
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    nan = x.clone()
    nan[0, 2] = torch.nan
    assert package.apply(nan)[0].isnan().all()
    assert package.apply(nan)[1:].isfinite().any()


@pytest.mark.parametrize("name", TEXTS)
def test_second_derivative(name: str, built: dict[str, Built]) -> None:
    x = torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    function = built[f"first_{name}"][1].apply
    assert torch.autograd.gradcheck(function, x.requires_grad_())
    assert torch.autograd.gradgradcheck(function, x, check_fwd_over_rev=True)
