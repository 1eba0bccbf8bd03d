"""Hooks that a module of a fused model gets or loses later are called as in eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

import fusegen

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("specs_by_torch")]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.act = nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.up(x)) * 1.5).tanh()


#: Of the norm's result, the product's input, the activation's gradient, and the model's result.
HOOKS: dict[str, Callable[[Any], RemovableHandle]] = {
    "forward": lambda m: m.norm.register_forward_hook(lambda *a: a[2] * 3),
    "before": lambda m: m.up.register_forward_pre_hook(lambda _, given: (given[0] + 1,)),
    "backward": lambda m: m.act.register_full_backward_hook(lambda *a: (a[1][0] * 2,)),
    "of the model": lambda m: m.register_forward_hook(lambda *a: a[2] * 5),
}


def seen(model: nn.Module, x: Tensor) -> list[Tensor]:
    y = model(x)
    return [y, *torch.autograd.grad(y.sin().sum(), [*model.parameters()])]


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_that_come_and_go(hook: str) -> None:
    torch.manual_seed(0)
    model, x = Model().double(), torch.randn(4, 6, dtype=torch.float64)
    plain = Model().double()
    plain.load_state_dict(model.state_dict())
    before = torch._dynamo.config.skip_nnmodule_hook_guards
    fused = fusegen.fuse(model, x, everything=True)
    assert torch._dynamo.config.skip_nnmodule_hook_guards is before
    first = seen(fused, x)
    handles = [HOOKS[hook](m) for m in (fused, plain)]
    found, wanted = seen(fused, x), seen(plain, x)
    torch.testing.assert_close(found, wanted)
    assert not torch.equal(found[1], first[1])
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(seen(fused, x), seen(plain, x))
    torch.testing.assert_close(seen(fused, x), first)
    assert torch._dynamo.config.skip_nnmodule_hook_guards is before
