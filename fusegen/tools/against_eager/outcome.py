"""All that one pass of a model gives: values, gradients of inputs and parameters, and buffers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from fusegen.models.call_once import call_once, copied

__all__ = ["outcome", "wide"]


def outcome(
    call: Callable[..., Any], model: nn.Module, given: inspect.BoundArguments, seed: int = 0
) -> dict[str, Tensor]:
    """Return what a forward and a backward pass give, by name; the model stays as it is.

    Args:
        call: calls the model.
        model: the model.
        given: its inputs.
        seed: of the random numbers that the model itself draws.
    """
    found: dict[str, Tensor] = {}

    def run() -> None:
        torch.manual_seed(seed)
        model.zero_grad(set_to_none=True)
        args, kwargs = copied((given.args, given.kwargs))
        for leaf in _tensors((args, kwargs)):
            leaf.requires_grad_(leaf.is_floating_point())
        # Clones, which the model may change in place.
        passed = _pytree.tree_map_only(Tensor, Tensor.clone, (args, kwargs))
        outs = _tensors(call(*passed[0], **passed[1]))
        live = [o for o in outs if o.requires_grad]
        if live:
            torch.autograd.backward(live, [_weights(o, n) for n, o in enumerate(live)])
        found.update(_numbered("output", [o.detach().clone() for o in outs]))
        bound = given.signature.bind(*args, **kwargs).arguments
        for name, value in bound.items():
            gradients = [t.grad for t in _tensors(value) if t.grad is not None]
            found.update(_numbered(f"gradient of {name}", gradients))
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                found[f"gradient of {name}"] = parameter.grad
        found.update({f"buffer {name}": b.clone() for name, b in model.named_buffers()})
        model.zero_grad(set_to_none=True)

    call_once(run, model, ())
    return found


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in the widest dtype of its kind."""
    return tensor.to(torch.complex128) if tensor.is_complex() else tensor.double()


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in _pytree.tree_leaves(value) if isinstance(t, Tensor)]


def _numbered(name: str, tensors: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors with their names, which have a number if there are several."""
    for n, tensor in enumerate(tensors):
        yield (name if len(tensors) == 1 else f"{name} {n}"), tensor


def _weights(out: Tensor, seed: int) -> Tensor:
    """Return random cotangents, which are the same numbers in all dtypes that bfloat16 holds."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(out.shape, generator=generator).bfloat16()
    return made.to(out.device, out.dtype)
