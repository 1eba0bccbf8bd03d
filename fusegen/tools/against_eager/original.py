"""A model that the command line names, as copies in a dtype and a mode, with random inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from fusegen.base.errors import UserError
from fusegen.models.backend import FusegenBackend
from fusegen.models.call_once import FunctionModel
from fusegen.models.compiled import compiled
from fusegen.models.fusion_report import Report
from fusegen.tools.against_eager.copies import copy_of
from fusegen.tools.importing import inputs_of, model_of

__all__ = ["Original", "changed", "nothing_fused", "one_line", "original_of", "through"]


@dataclass(frozen=True)
class Original:
    """A model or a function of tensors, as it is given.

    Args:
        title: its text on the command line.
        model: the model; a function is wrapped in one.
        inputs: the text of `--inputs`.
        device: where it runs.
    """

    title: str
    model: nn.Module
    inputs: str
    device: str

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its parameters; float32 without any."""
        floating = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        return next(floating, torch.float32)

    def copy(self, dtype: torch.dtype, *, train: bool) -> nn.Module:
        """Return a copy in a dtype and a mode."""
        return copy_of(self.model).to(self.device, dtype).train(train)

    def given(self, dtype: torch.dtype, seed: int = 0) -> inspect.BoundArguments:
        """Return random inputs; floating-point ones that name no dtype have this one.

        Raises:
            UserError: if the text says nothing that the model takes.
        """
        bound = inputs_of(self.inputs, self.model, dtype, seed)
        return changed(bound, lambda t: t.to(self.device))


def changed(
    given: inspect.BoundArguments, function: Callable[[Tensor], Tensor]
) -> inspect.BoundArguments:
    """Return inputs with a function applied to each tensor."""
    args, kwargs = _pytree.tree_map_only(Tensor, function, (given.args, given.kwargs))
    return given.signature.bind(*args, **kwargs)


def original_of(text: str, inputs: str | None, device: str | None) -> Original:
    """Return the model that the command line names.

    Raises:
        UserError: if it names none, or the options don't fit.
    """
    if inputs is None:
        raise UserError(f"{text} is a model: give example inputs, such as --inputs 4x128x512")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here")
    torch.manual_seed(0)
    made = model_of(text)
    model = made if isinstance(made, nn.Module) else FunctionModel(made)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Original(text, model, inputs, where)


def through(model: nn.Module, backend: FusegenBackend | str) -> Callable[..., Any]:
    """Return what calls a model through a back end of torch.compile."""
    unrolled = not isinstance(backend, FusegenBackend) or backend.rest != "eager"
    return compiled(model, backend, with_recurrent=not unrolled)


def nothing_fused(title: str, report: Report) -> UserError:
    """Return the error of a model in which nothing is fused."""
    reasons = [r.reason for r in report.regions if r.reason]
    reasons += [f"{name}: {reason}" for (name, reason), _ in report.left.most_common(3)]
    shown = "; ".join(list(dict.fromkeys(reasons))[:3]) or "torch.compile captured nothing"
    return UserError(f"nothing of {title} is fused: {shown}")


def one_line(error: BaseException) -> str:
    """Return an error as one line: its type, and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
