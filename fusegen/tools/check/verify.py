"""Is a built package right? Gradcheck in float64, and every dtype against a float64 reference."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusegen import chain
from fusegen.atoms import detach
from fusegen.base import stamp
from fusegen.base.errors import UserError
from fusegen.runtime.loading import load_package
from fusegen.toolchain import pipeline
from fusegen.tools.check.compare import (
    BOUND,
    Case,
    Comparison,
    Error,
    Values,
    compare,
    each,
    function_of,
    gradients,
    make_case,
)

__all__ = [
    "BOUND",
    "Case",
    "Comparison",
    "Error",
    "Verdict",
    "check",
    "compare",
    "gradcheck",
    "gradients",
    "make_case",
]


@dataclass(frozen=True)
class Verdict:
    """One check of one package: what was checked, its worst error and its bound, as text."""

    package: str
    device: str
    what: str
    worst: str
    bound: str
    passed: bool


def gradcheck(
    package: Any,
    derived: chain.Chain,
    *,
    training: bool,
    device: str = "cpu",
    case: Case | None = None,
) -> None:
    """Run torch's gradcheck on every derivative that was generated, over x and every operand.

    Args:
        package: the built package.
        derived: its chain.
        training: the mode.
        device: where to run.
        case: the call, by default a random one.

    Raises:
        RuntimeError: if a derivative differs from finite differences.
    """
    case = case or make_case(
        derived, derived.example_shape(3, 5), training=training, seed=1, device=device
    )
    tensors, names = [case.x, *case.operands.values()], list(case.operands)
    moving = [True, *(o.differentiable for o in derived.operands)]
    leaves = [t.detach().clone().requires_grad_(m) for t, m in zip(tensors, moving, strict=True)]

    def function(*given: Tensor) -> Values:
        x, *kept = [g if m else g.clone() for g, m in zip(given, moving, strict=True)]
        operands = dict(zip(names, kept, strict=True))
        result = each(function_of(package, derived)(x, **operands, **case.options))
        return tuple(value for value in result if value.is_floating_point())

    if not function(*leaves):  # numbers of columns
        return
    torch.autograd.gradcheck(function, leaves)
    if derived.spec.order >= 2:
        torch.autograd.gradgradcheck(function, leaves)
    if derived.spec.order >= 3:

        def gradient(*given: Tensor) -> tuple[Tensor, ...]:
            wanted = [g for g, m in zip(given, moving, strict=True) if m]
            squares = [value.square().sum() for value in each(function(*given))]
            return torch.autograd.grad(squares, wanted, create_graph=True)

        torch.autograd.gradgradcheck(gradient, leaves)


def check(specs: Sequence[Path], out: Path) -> list[Verdict]:
    """Check the built packages of specs on every device, and with every dtype, that they are built for.

    Raises:
        UserError: if a spec is wrong, or has no derivatives.
        ImportError: if a package is not built.
    """
    verdicts = []
    for path in specs:
        derived = pipeline.derive_all(path)
        if not derived.spec.order:
            raise UserError(
                f"{path}: it has order: 0; give it a derivative, which is what is checked"
            )
        package = load_package(derived.spec.name, out)
        built = stamp.read(out / derived.spec.name / "_cpu.so").dtypes[derived.spec.name]
        devices = ["cpu"]
        if torch.cuda.is_available() and (out / derived.spec.name / "_cuda.so").exists():
            devices.append("cuda")
        alone = derived.spec.mode == "training"
        for device, one in itertools.product(devices, derived.fused):
            for training in ((True,) if alone else (False, True)) if one.moded else (False,):
                verdicts += _check_mode(package, one, training, device, built)
    return verdicts


def _detaches(derived: chain.Chain) -> bool:
    """Return whether a chain's derivatives are not those of its value."""
    return bool(derived.spec.detached) or any(s.expr.has(detach) for s in derived.spec.steps)


def _check_mode(
    package: Any, derived: chain.Chain, training: bool, device: str, built: Sequence[str]
) -> list[Verdict]:
    name = derived.spec.title
    mode = " (training)" if training else ""
    verdicts = []
    try:
        why = "not run: detach(y) has a slope, and a derivative of 0" if _detaches(derived) else ""
        if not why and "float64" not in built:
            why = "not run: the package is built without float64"
        if not why:
            gradcheck(package, derived, training=training, device=device)
        verdicts.append(Verdict(name, device, f"gradcheck{mode}", why, "", True))
    except RuntimeError as error:  # torch's error for a wrong gradient
        first = str(error).splitlines()[0]
        verdicts.append(Verdict(name, device, f"gradcheck{mode}", first, "", False))
    for dtype in (d for d in BOUND if str(d).removeprefix("torch.") in built):
        case = make_case(derived, derived.example_shape(33, 257), training=training, device=device)
        errors = compare(package, derived, case, dtype)
        for operator in ("forward", "backward"):
            own = [e for e in errors if e.name.startswith("grad_") == (operator == "backward")]
            most = max(own, key=lambda e: e.units)
            label = f"{operator}, {str(dtype).removeprefix('torch.')}{mode}"
            bound = f"{most.bound:g} units"
            verdicts.append(Verdict(name, device, label, str(most), bound, most.within))
    return verdicts
