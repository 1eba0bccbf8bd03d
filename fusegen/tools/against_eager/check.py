"""`fusegen check model.py:Class`: values, gradients and buffers of a model and of the same model fused.

Each error is against float64, and is measured in units of eager's own error: of its largest over the inputs,
or of half an ulp of the tensor's largest number where eager's is smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fusegen.base.errors import UserError
from fusegen.models import FusegenBackend
from fusegen.tools.against_eager.copies import copy_of
from fusegen.tools.against_eager.exact_casts import ExactCasts
from fusegen.tools.against_eager.original import (
    Original,
    changed,
    nothing_fused,
    one_line,
    through,
)
from fusegen.tools.against_eager.outcome import outcome, wide

__all__ = ["BOUND", "DTYPES", "INPUTS", "Verdict", "check"]

#: The dtypes that are checked by default, and how many random inputs each.
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
INPUTS = 5
#: The largest error allowed, in units; both errors are a few roundings, and another order of summation moves
#: either by that much. A tensor of a few numbers may have an eager error that is small by chance.
BOUND, BOUND_OF_FEW = 4.0, 16.0
_FEW = 20

Outcome = dict[str, Tensor]


@dataclass
class Verdict:
    """What came of a model in one dtype and mode.

    Args:
        dtype: the dtype.
        mode: "train", "eval", or "eval, no grad".
        errors: the largest error of each tensor in units.
        wrong: what is wrong, a line each.
        skipped: why nothing was compared; empty if it was.
    """

    dtype: str
    mode: str
    errors: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def worst(self) -> str:
        """The tensor of the largest error; empty without any."""
        return max(self.errors, key=self.errors.__getitem__, default="")


def check(
    original: Original,
    backend: FusegenBackend,
    dtypes: Sequence[torch.dtype] = DTYPES,
    say: Callable[[str], None] = lambda _: None,
) -> list[Verdict]:
    """Return a verdict for each dtype and mode.

    Args:
        original: the model.
        backend: fuses it.
        dtypes: the dtypes.
        say: told what is checked next.

    Raises:
        UserError: if the model fails on the inputs in each of the dtypes, or nothing of it is fused.
    """
    verdicts = []
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    # A backward pass in this thread, where the mode is that keeps the truth exact.
    try:
        with torch.autograd.set_multithreading_enabled(False):
            for dtype in dtypes:
                for mode in _MODES:
                    say(f"{str(dtype).removeprefix('torch.')}, {mode}")
                    verdicts.append(_verdict(original, backend, dtype, mode))
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    reasons = [v.skipped for v in verdicts]
    if all(reasons):
        raise UserError(f"{original.title} cannot be checked: {'; '.join(dict.fromkeys(reasons))}")
    if not backend.report.fused and not any(v.wrong for v in verdicts):
        raise nothing_fused(original.title, backend.report)
    return verdicts


_MODES = ("train", "eval", "eval, no grad")


def _verdict(original: Original, backend: FusegenBackend, dtype: torch.dtype, mode: str) -> Verdict:
    """Compare in one dtype and mode."""
    found = Verdict(str(dtype).removeprefix("torch."), mode)
    model = original.copy(dtype, train=mode == "train")
    _stop_dropout(model)
    inputs = [original.given(dtype, seed) for seed in range(INPUTS)]
    with torch.set_grad_enabled(mode != "eval, no grad"):
        try:
            eager = [outcome(model, model, given) for given in inputs]
            again = outcome(model, model, inputs[0], seed=1)
        except Exception as error:  # whatever the model's own code raises
            found.skipped = f"eager fails: {one_line(error)}"
            return found
        if not _same(eager[0], again):
            found.skipped = "the model draws random numbers, which differ from eager's when fused"
            return found
        try:
            truth = [_truth(model, given) for given in inputs]
        except Exception as error:  # a model that takes no float64
            found.skipped = f"there is no truth: eager fails in float64: {one_line(error)}"
            return found
        floor = _floor(model, inputs, dtype)
        fused_model = copy_of(model)
        try:
            call = through(fused_model, backend)
            fused = [outcome(call, fused_model, given) for given in inputs]
        except Exception as error:  # torch's, or that of a package
            found.wrong.append(f"the fused model fails: {one_line(error)}")
            return found
    _compare(found, fused, eager, truth, floor)
    return found


def _stop_dropout(model: nn.Module) -> None:
    """Set the probabilities of dropout to 0: a fused model draws other random numbers."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float) and 0 < value < 1:
                setattr(module, name, 0.0)


def _truth(model: nn.Module, given: Any) -> Outcome:
    """Return what float64 gives for the same numbers."""
    exact = copy_of(model).double()
    inputs = changed(given, lambda t: t.double() if t.is_floating_point() else t)
    with ExactCasts():  # type: ignore[no-untyped-call]
        return outcome(exact, exact, inputs)


def _floor(model: nn.Module, inputs: Sequence[Any], dtype: torch.dtype) -> Any:
    """Return what eager's error in float64 should be, from its error in float32, by tensor."""
    if dtype is not torch.float64:
        return {}
    single = copy_of(model).float()
    scale = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    found: dict[str, float] = {}
    for given in inputs:
        rounded = changed(given, lambda t: t.float() if t.is_floating_point() else t)
        try:
            narrow, truth = outcome(single, single, rounded), _truth(single, rounded)
        except Exception:  # a model of float64 alone
            return {}
        for name in narrow.keys() & truth.keys():
            error = _error(narrow[name], truth[name]) * scale
            found[name] = max(found.get(name, 0.0), error)
    return found


def _same(one: Outcome, other: Outcome) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[n].nan_to_num(), other[n].nan_to_num()) for n in one
    )


def _compare(
    found: Verdict,
    fused: Sequence[Outcome],
    eager: Sequence[Outcome],
    truth: Sequence[Outcome],
    floor: dict[str, float],
) -> None:
    """Note the errors of all tensors in units, and what is wrong."""
    missing = sorted(eager[0].keys() - fused[0].keys())
    found.wrong += [f"{name} is missing" for name in missing]
    found.wrong += [f"{name} is not in eager" for name in sorted(fused[0].keys() - eager[0].keys())]
    for name in (n for n in eager[0] if n in fused[0]):
        own, others, exact = ([o[name] for o in outs] for outs in (fused, eager, truth))
        unlike = [_unlike(a, b) for a, b in zip(own, others, strict=True)]
        if any(unlike):
            found.wrong.append(f"{name}: {next(filter(None, unlike))}")
            continue
        pairs = [_finite(*tensors) for tensors in zip(own, others, exact, strict=True)]
        unit = max(*(_error(b, t) for _, b, t in pairs), _half_ulp(pairs), floor.get(name, 0.0))
        error = max(_error(a, t) for a, _, t in pairs)
        ratio = error / unit if unit else (math.inf if error else 0.0)
        found.errors[name] = ratio
        bound = BOUND if sum(b.numel() for _, b, _ in pairs) >= _FEW else BOUND_OF_FEW
        if ratio > bound:
            found.wrong.append(
                f"{name}: {ratio:.1f} times eager's error (at most {bound:g}): {error:.2g}, eager {unit:.2g}"
            )


def _unlike(own: Tensor, other: Tensor) -> str:
    """Return what differs in kind between a tensor and eager's; empty if nothing does."""
    for what, value in (("dtype", lambda t: str(t.dtype)[6:]), ("shape", lambda t: list(t.shape))):
        get: Callable[[Tensor], Any] = value
        if get(own) != get(other):
            return f"its {what} is {get(own)}, in eager {get(other)}"
    bad = other.isfinite() & ~own.isfinite()
    return f"{int(bad.sum())} numbers are not finite, and are in eager" if bad.any() else ""


def _finite(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the numbers that are finite in all tensors."""
    where = torch.stack([t.isfinite() for t in tensors]).all(0)
    return tuple(t[where] for t in tensors)


def _error(value: Tensor, truth: Tensor) -> float:
    """Return the largest error; of integers and bools, how many differ."""
    if not (value.is_floating_point() or value.is_complex()):
        return float((value != truth).sum())
    return float((wide(value) - wide(truth)).abs().max()) if value.numel() else 0.0


def _half_ulp(pairs: Sequence[tuple[Tensor, ...]]) -> float:
    """Return half an ulp of the largest number; of integers and bools, one that differs."""
    value = pairs[0][1]
    if not (value.is_floating_point() or value.is_complex()):
        return 1.0
    largest = max((float(t.abs().max()) for _, _, t in pairs if t.numel()), default=0.0)
    return torch.finfo(value.dtype).eps / 2 * largest
