"""Results of regions have eager's strides wherever a view or a result of the model needs them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from shared.by_torch import reference
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree

from fusegen.models import FusegenBackend, backend
from fusegen.models.result_strides import in_order

X = torch.randn(2, 5, 72, dtype=torch.float64)


def heads(x: Tensor) -> tuple[Tensor, ...]:
    """Return the queries, keys and values of a projection: parts of it, [batch, head, position, feature]."""
    return x.view(len(x), 5, 3, 4, 6).permute(2, 0, 3, 1, 4).unbind()


def merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).view(len(x), 5, 24)


def a_view(x: Tensor) -> Tensor:
    return merged((heads(x)[0] * 2).tanh())


def a_view_of_another_op(x: Tensor) -> Tensor:
    return merged((heads(x)[0] * 2).tanh().atan())


def a_view_after_a_norm(x: Tensor) -> Tensor:
    q, k, _ = heads(x)
    return merged(functional.normalize(q + k, dim=-1).exp())


def results(x: Tensor) -> Any:
    q, k, v = heads(x)
    return (q * k).tanh(), (q * 3 + v).transpose(1, 3)


def a_result_and_a_product(x: Tensor) -> Any:
    q, k, v = heads(x)
    scores = (q * 3).tanh() @ (k + v).exp().mT
    return scores.softmax(-1) @ v


@pytest.fixture(autouse=True)
def _contiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch compute each spec and give contiguous results, as a package may."""

    def packages(specs: Any, *_: Any, **__: Any) -> Any:
        def of(text: str) -> Any:
            apply = reference(text)

            def contiguous(*args: Any, **kwargs: Any) -> Any:
                return _pytree.tree_map(lambda t: t.contiguous(), apply(*args, **kwargs))

            return SimpleNamespace(apply=torch._dynamo.disable(contiguous))

        return {spec.name: of(spec.text) for spec in specs}, {}

    monkeypatch.setattr(backend, "packages_of", packages)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("form", "copies"),
    [
        (a_view, 1),
        (a_view_of_another_op, 1),
        (a_view_after_a_norm, 1),
        (results, 2),
        (a_result_and_a_product, 0),
    ],
)
def test_strides_are_those_of_eager(
    form: Any, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def counted(value: Tensor, order: tuple[int, ...]) -> Tensor:
        nonlocal count
        count += 1
        return in_order(value, order)

    monkeypatch.setattr("fusegen.models.put_back.in_order", torch._dynamo.disable(counted))
    fused = torch.compile(form, backend=FusegenBackend(everything=True))
    for batch in (2, 3, 1):
        x = X[:1].repeat(batch, 1, 1)
        found, wanted = (_pytree.tree_leaves(f(x)) for f in (fused, form))
        assert [t.stride() for t in found] == [t.stride() for t in wanted]
        torch.testing.assert_close(found, wanted)
    assert count == 3 * copies


def test_what_lies_so_already_is_not_copied() -> None:
    x = torch.randn(2, 3, 4)
    assert in_order(x, (0, 1, 2)) is x
    assert in_order(x.mT, (0, 2, 1)).data_ptr() == x.data_ptr()
    assert in_order(x, (2, 0, 1)).stride() == (3, 1, 6)
    assert in_order(x, (2, 0, 1)).equal(x)
