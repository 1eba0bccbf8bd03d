"""A spec as torch computes it, without a build, and all that a call of a model gives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from fusegen import spec
from fusegen.models.backend import FusegenBackend
from fusegen.tools.check.reference import run_chain


def reference(text: str) -> Callable[..., Any]:
    """Return the `apply` of a spec, by torch's own functions; 16 bits are computed in float32."""
    parsed = spec.parse(text, "region")
    labels = parsed.outputs or (parsed.steps[-1].label,)

    @torch._dynamo.disable
    def apply(x: Tensor, *, training: bool = False, **operands: Tensor) -> Any:
        if x.dtype not in (torch.bfloat16, torch.float16):
            return run_chain(parsed, x, operands, {}, training=training)
        wide = {k: t.float() if t.is_floating_point() else t for k, t in operands.items()}
        found = run_chain(parsed, x.float(), wide, {}, training=training)
        for name, tensor in operands.items():
            if not torch.equal(wide[name], tensor.to(wide[name].dtype)):  # a running average
                tensor.copy_(wide[name])
        values = found if isinstance(found, tuple) else (found,)
        results = tuple(
            value if label in parsed.float32 else value.to(x.dtype)
            for label, value in zip(labels, values, strict=True)
        )
        return results if isinstance(found, tuple) else results[0]

    return apply


def packages(specs: Any, folder: Any, *, build: bool) -> Any:
    """Stand in for `fusegen.models.packages.packages_of`: the packages of specs, and why others have none."""
    del folder, build
    return {s.name: SimpleNamespace(apply=reference(s.text)) for s in specs}, {}


def seen(model: Any, inputs: tuple[Tensor, ...], run: Any) -> list[Any]:
    """Return all that a call gives: values, whether they have gradients, these, and what it changed."""
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in inputs]
    given = [t.clone() for t in leaves]  # no leaf, so that it may be changed in place
    outs = [t for t in _pytree.tree_leaves(run(*given)) if isinstance(t, Tensor)]
    live = [o for o in outs if o.requires_grad]
    if live:
        torch.autograd.backward(live, [torch.cos(o.detach()) for o in live])
    state = dict(model.state_dict()) if isinstance(model, nn.Module) else {}
    grads = [t.grad for t in leaves]
    if isinstance(model, nn.Module):
        grads += [p.grad for p in model.parameters()]
    return [*((o.detach(), o.requires_grad) for o in outs), *grads, *given, *state.values()]


def hold_seen(
    found: Sequence[Any],
    wanted: Sequence[Any],
    *,
    equal_nan: bool = False,
    alike: Callable[[Tensor], Any] | None = None,
) -> None:
    """Compare all that two calls gave, in float64.

    Args:
        found: what one call gave.
        wanted: what the other one gave.
        equal_nan: whether NaN equals NaN.
        alike: what must be the same of their values, such as the strides.
    """
    assert len(found) == len(wanted)
    for got, truth in zip(found, wanted, strict=True):
        if isinstance(truth, tuple):
            assert got[1] == truth[1], "whether it has a gradient"
            got, truth = got[0], truth[0]
            assert alike is None or alike(got) == alike(truth)
        assert (got is None) == (truth is None)
        if truth is not None:
            torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-10, equal_nan=equal_nan)


def hold_fused(made: type[nn.Module], x: Tensor, ops: set[str]) -> None:
    """Compare a model with itself fused, in float64; some ops must be fused."""
    torch.manual_seed(0)
    model = made().double()
    other = copy.deepcopy(model)
    used = FusegenBackend(everything=True)
    wanted, found = seen(model, (x,), model), seen(other, (x,), torch.compile(other, backend=used))
    for got, truth in zip(found, wanted, strict=True):
        both: Any = tuple(t[0] if isinstance(t, tuple) else t for t in (got, truth))
        torch.testing.assert_close(*both)
    fused = {op for region in used.report.regions if not region.reason for op in region.ops}
    assert ops <= fused, used.report


def replayed(
    steps: Sequence[tuple[Callable[..., Any], tuple[int, ...]]], returned: Sequence[int]
) -> Callable[..., list[Tensor]]:
    """Return the graph of some steps, each a function of the inputs and earlier values by their places."""

    def graph(*given: Tensor) -> list[Tensor]:
        found = list(given)
        for function, places in steps:
            found.append(function(*(found[place] for place in places)))
        return [found[place] * 1 if place < len(given) else found[place] for place in returned]

    return graph
