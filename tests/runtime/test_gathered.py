"""An embedding that comes column after column, against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fusegen.runtime import gathered
from fusegen.runtime.gathered import embedding_by_columns


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device; a CPU is taken for a GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    if request.param == "cpu":
        monkeypatch.setattr(gathered, "is_plain_on_gpu", lambda x: type(x) is Tensor)
    return str(request.param)


@pytest.mark.parametrize("padding", [None, 2, -1])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_values_and_gradients(padding: int | None, dtype: torch.dtype, device: str) -> None:
    table = torch.randn(7, 3, dtype=torch.float64, device=device, requires_grad=True)
    places = torch.randint(7, (5, 6), device=device).to(dtype)
    found, wanted = (
        f(places, table, padding) for f in (embedding_by_columns, functional.embedding)
    )
    assert torch.equal(found, wanted)
    assert found.permute(2, 0, 1).is_contiguous()
    along = torch.randn_like(wanted, requires_grad=True)
    (slope,) = torch.autograd.grad(found, table, along, create_graph=True)
    (right,) = torch.autograd.grad(wanted, table, along, create_graph=True)
    torch.testing.assert_close(slope, right)
    again = torch.randn_like(right)
    (second,) = torch.autograd.grad(slope, along, again)
    torch.testing.assert_close(second, torch.autograd.grad(right, along, again)[0])


def test_without_gradients_and_with_none(device: str) -> None:
    table = torch.randn(7, 3, device=device, requires_grad=True)
    places = torch.tensor([[6, 0]], device=device)
    with torch.no_grad():
        assert not embedding_by_columns(places, table).requires_grad
    assert not embedding_by_columns(places, table.detach()).requires_grad
    none = torch.empty(0, 4, dtype=torch.int64, device=device)
    assert embedding_by_columns(none, table).shape == (0, 4, 3)


def test_a_table_of_another_class(device: str) -> None:
    """Its class decides what becomes of it."""

    class Own(Tensor):
        pass

    table = torch.randn(7, 3, device=device).as_subclass(Own)
    assert type(embedding_by_columns(torch.tensor([1], device=device), table)) is Own
