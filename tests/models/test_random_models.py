"""Random models, fused, against the same models in eager; `prove models` holds more of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_models import hold
from random_models.generate import made
from torch import Tensor, nn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("native")]

SEEDS = range(4)


def test_a_seed_gives_one_model() -> None:
    (one, x), (other, y) = made(3), made(3)
    assert str(one) == str(other)
    assert torch.equal(x, y)
    for first, second in zip(one.eval()(x), other.eval()(y), strict=True):
        assert torch.equal(first, second)


def test_random_models_are_the_same_fused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = hold.hold(SEEDS, tmp_path)
    assert not outcome.wrong, "\n".join(outcome.wrong.values())
    assert outcome.models + outcome.left == len(SEEDS)
    assert outcome.regions > len(SEEDS)
    # The same models with a slip in one gradient.
    results = hold.results

    def slipped(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        found = results(model, x)
        if model._compiled_call_impl is not None:  # the fused one
            found["gradient of x"] = found["gradient of x"] * 1.001
        return found

    monkeypatch.setattr(hold, "results", slipped)
    again = hold.hold([SEEDS[0]], tmp_path)
    assert "gradient of x: off by" in again.wrong[SEEDS[0]]
