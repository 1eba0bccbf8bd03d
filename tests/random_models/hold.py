"""Fuses random models, their packages in few libraries, and holds them against themselves in eager."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from random_programs.build import build_together
from torch import Tensor, nn

import fusegen
from fusegen.base.errors import UserError
from fusegen.models import backend
from fusegen.models.packages import load_packages
from fusegen.models.spec_text import PackageSpec
from random_models.generate import made

#: How far results may be from eager's: relative to the largest number of the tensor, and to that of all
#: gradients. Functions of float32 are good to 4 ulp (docs/evidence.md), and neighbouring numbers have the
#: same error; sums that cancel, such as a bias's gradient before a norm, show that.
NEAR = {torch.float64: (1e-9, 1e-12), torch.float32: (4e-6, 4e-5)}
#: How often a result's error may be eager's own.
TIMES = 8.0


@dataclass
class Outcome:
    """What became of models.

    Args:
        models: how many were fused and compared.
        regions: how many kernels they have.
        ops: how many ops these compute.
        results: how many tensors were compared.
        left: how many have nothing to fuse.
        wrong: what was wrong, by seed.
    """

    models: int = 0
    regions: int = 0
    ops: int = 0
    results: int = 0
    left: int = 0
    wrong: dict[int, str] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Add what became of others."""
        for name in ("models", "regions", "ops", "results", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong |= other.wrong


def hold(seeds: Sequence[int], folder: Path) -> Outcome:
    """Return what became of the models of some seeds; every second one is of float32.

    Args:
        seeds: the seeds.
        folder: an empty folder, for their packages.
    """
    outcome, specs, packages_of = Outcome(), dict[str, PackageSpec](), backend.packages_of

    def noted(
        given: Sequence[PackageSpec], *_: Any, **__: Any
    ) -> tuple[dict[str, ModuleType], Any]:
        specs.update({spec.name: spec for spec in given})
        return {}, {spec.name: "not built yet" for spec in given}

    def loaded(given: Sequence[PackageSpec], *_: Any, **__: Any) -> tuple[Mapping[str, Any], Any]:
        return load_packages(given, folder, {})

    try:
        backend.packages_of = noted
        for seed in seeds:
            _guarded(outcome, seed, lambda seed=seed: _fused(*_of(seed)))
        texts = {spec.name: spec.text for spec in specs.values()}
        if texts:
            dtypes = {n: (("float64", "float32")["float32" in t],) for n, t in texts.items()}
            build_together(folder, texts, 12, "-O1", dtypes)
        backend.packages_of = loaded
        for seed in seeds:
            if seed not in outcome.wrong:
                _guarded(outcome, seed, lambda seed=seed: _compare(outcome, seed))
    finally:
        backend.packages_of = packages_of
    return outcome


def _guarded(outcome: Outcome, seed: int, does: Any) -> None:
    torch._dynamo.reset()
    try:
        does()
    except Exception:
        outcome.wrong[seed] = traceback.format_exc()[-2000:]


def _of(seed: int) -> tuple[nn.Module, Tensor]:
    """Return a seed's model and input in the dtype in which it is fused."""
    model, x = made(seed)
    dtype = torch.float32 if seed % 2 else torch.float64
    return model.to(dtype), x.to(dtype)


def _fused(model: nn.Module, x: Tensor) -> nn.Module | None:
    """Return the model fused; None if torch captured nothing of it."""
    try:
        return fusegen.fuse(model, x, everything=True)
    except UserError as error:
        if "captured nothing" in str(error):
            return None
        raise


def _compare(outcome: Outcome, seed: int) -> None:
    """Compare a fused model with itself in eager."""
    (wide, x64), (model, x) = made(seed), _of(seed)
    eager = copy.deepcopy(model)
    fused = _fused(model, x)
    # `fuse` has called the model: batch norms count that.
    model.load_state_dict(eager.state_dict())
    report = fusegen.report(fused) if fused else None
    regions = [r for r in report.regions if not r.reason] if report else []
    if fused is None or not regions:
        outcome.left += 1
        return
    refused = [r.reason for r in report.regions if "build" in r.reason] if report else []
    assert not refused, refused
    truth, by_eager, got = results(wide, x64), results(eager, x), results(fused, x)
    largest = max(float(t.abs().max()) for n, t in truth.items() if "gradient" in n)
    assert got.keys() == truth.keys()
    for name, wanted in truth.items():
        error, noise = (float((t[name].double() - wanted).abs().max()) for t in (got, by_eager))
        size = float(wanted.abs().max())
        allowed = NEAR[x.dtype][0] * size + NEAR[x.dtype][1] * largest + TIMES * noise
        assert error <= allowed, f"{name}: off by {error}, {allowed} allowed, size {size}\n{model}"
    outcome.models += 1
    outcome.regions += len(regions)
    outcome.ops += sum(len(region.ops) for region in regions)
    outcome.results += len(truth)


def results(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return all that a training step gives: the value, gradients and buffers."""
    given = x.clone().requires_grad_()
    outs = model(given)
    used = [outs[place] for place in model.used]
    weights = [
        torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype)
        for out in used
    ]
    model.zero_grad()
    torch.autograd.backward(used, weights)
    assert given.grad is not None
    found = {f"value {n}": out.detach() for n, out in enumerate(outs)}
    found["gradient of x"] = given.grad
    found |= {f"gradient of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return found | {n: b.clone() for n, b in model.named_buffers() if b.is_floating_point()}
