"""The comparison of `make prove` with torch's samples: what is wrong is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prove import torch_samples
from prove.torch_samples import Found, Sample
from shared.by_torch import reference

from fusegen.models import backend

SAMPLE = Sample(
    lambda x, w: torch.addcmul(x, w, w, value=2.0),
    [torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)],
    True,
    "a sample",
)


@pytest.fixture
def worth(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("fusegen.models.plan._not_worth", torch_samples._always_worth)
    yield
    torch._dynamo.reset()


def compared(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], dtype: torch.dtype
) -> Found:
    """Return what is found where the packages are torch's own functions, changed."""

    def packages(specs: Any, folder: Any, *, build: bool) -> Any:
        del folder, build

        def apply_of(text: str) -> Callable[..., Any]:
            apply = reference(text)
            return lambda *given, **named: change(apply(*given, **named))

        return {s.name: SimpleNamespace(apply=apply_of(s.text)) for s in specs}, {}

    monkeypatch.setattr(backend, "packages_of", packages)
    row = Found("addcmul", "addcmul", str(dtype)[6:])
    torch_samples._compare(row, SAMPLE, dtype, Path("nowhere"))
    return row


@pytest.mark.slow
@pytest.mark.usefixtures("worth")
def test_samples_are_compared_in_value_and_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    row = compared(monkeypatch, lambda y: y, torch.float64)
    assert (row.samples, row.fused, row.wrong) == (1, 1, [])
    assert row.results == 6  # the value, two gradients, and the derivatives of their sum
    wrong = compared(monkeypatch, lambda y: y * (1 + 1e-10), torch.float64).wrong
    assert len(wrong) == 5, "all but the second derivative by x, which is 0"
    assert wrong[0].startswith("a sample: value: off by ")
    wrong = compared(monkeypatch, lambda y: y + 0 * y.log(), torch.float32).wrong
    assert any("off by inf" in w for w in wrong), "a NaN is no number"


@pytest.mark.slow
def test_the_list_of_torch_has_the_vocabulary() -> None:
    names = {op.name for op, _ in torch_samples.op_infos()}
    assert {"gelu", "cross_entropy", "layer_norm", "conv2d", "amax", "prelu"} <= names
