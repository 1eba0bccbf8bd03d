"""What a saved value was computed from has the same bits in every operator."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from conftest import ROOT, dtypes_on_devices, once, shared
from random_programs.build import build_specs
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, layer_norm, silu

from fusegen import load
from fusegen.lower.kernel.kernel import Kernel
from fusegen.lower.passes.mark_reproduced import reproduced
from fusegen.toolchain import pipeline

ROWS, COLS = 257, 33

#: What comes before a reduction: steps, and the same in torch.
PROLOGUES: dict[str, tuple[str, Callable[[Tensor, Mapping[str, Tensor]], Tensor]]] = {
    "affine_norm": (
        "layer_norm: {weight: weight, bias: bias}\n  - gelu",
        lambda x, o: gelu(layer_norm(x, (COLS,)) * o["weight"] + o["bias"]),
    ),
    "gate": (
        "swish\n  - mul: gate\n  - mul: scale",
        lambda x, o: silu(x) * o["gate"] * o["scale"],
    ),
    "scale": ("mul: scale", lambda x, o: x * o["scale"]),
    "product": (
        'expr: "x * weight * scale * gate"',
        lambda x, o: x * o["weight"] * o["scale"] * o["gate"],
    ),
    "formula": (
        'expr: "weight * x * rsqrt(mean(x**2) + 1e-6) * scale + bias"',
        lambda x, o: (
            o["weight"] * x * torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-6) * o["scale"]
            + o["bias"]
        ),
    ),
}
OPERANDS = {"weight": "col", "bias": "col", "scale": "scalar", "gate": "full"}

#: Reductions, each after the prologues that are named.
REDUCTIONS: dict[str, tuple[str, Callable[[Tensor], Tensor], tuple[str, ...]]] = {
    "amax": ("amax: {dim: -1}", lambda v: v.amax(-1), ("affine_norm", "formula")),
    "amin": ("amin: {dim: -1}", lambda v: v.amin(-1), ("gate",)),
    "softmax": ("softmax", lambda v: v.softmax(-1), ("scale", "product")),
    "norm_inf": (
        "norm: {dim: -1, p: inf}",
        lambda v: torch.linalg.vector_norm(v, torch.inf, -1),
        ("product",),
    ),
    "max_formula": (
        'expr: "x - max(x)"',
        lambda v: v - v.amax(-1, keepdim=True),
        ("affine_norm",),
    ),
    "classes": (
        "cross_entropy: {target: target, reduction: none}",
        lambda v: cross_entropy(v, v.detach().argmax(-1), reduction="none"),
        ("scale", "formula"),
    ),
}
CASES = {f"{p}_{r}": (p, r) for r, (_, _, before) in REDUCTIONS.items() for p in before}
#: float32, in which errors show most, and the others in turn: the arithmetic of all is the same text.
COMPILED = {
    name: ("float32", ("float64", "bfloat16", "float16")[n % 3]) for n, name in enumerate(CASES)
}


def spec_text(prologue: str, reduction: str) -> str:
    steps, after = PROLOGUES[prologue][0], REDUCTIONS[reduction][0]
    used = {n: k for n, k in OPERANDS.items() if re.search(rf"\b{n}\b(?!:)", steps)}
    lines = [f"  {name}: {kind}" for name, kind in used.items()]
    if reduction == "classes":
        lines.append("  target: {kind: row, dtype: int64}")
    return "\n".join(["operands:", *lines, "chain:", f"  - {steps}", f"  - {after}", ""])


@pytest.fixture(scope="session")
def reductions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package for each case."""
    folder = shared(tmp_path_factory) / "reproduced"

    def make() -> None:
        (folder / "specs").mkdir(parents=True)
        for name, (prologue, reduction) in CASES.items():
            (folder / "specs" / f"{name}.yaml").write_text(spec_text(prologue, reduction))
        specs = sorted((folder / "specs").glob("*.yaml"))
        build_specs(specs, folder / "generated", "-O3", COMPILED)

    once(tmp_path_factory, "reproduced", make)
    return folder / "generated"


class Case:
    """One prologue and reduction at one scale, with what torch makes of it in some dtype.

    Operands are rounded to bfloat16, so that all dtypes compute the same function; many elements are equal.
    """

    def __init__(self, folder: Path, name: str, scale: float, device: str) -> None:
        self.package = load(name, folder)
        prologue, reduction = CASES[name]
        self.before, self.after = PROLOGUES[prologue][1], REDUCTIONS[reduction][1]
        generator = torch.Generator().manual_seed(7)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).bfloat16().double().to(device)

        self.x = normal(ROWS, COLS)
        self.operands = {"weight": normal(COLS), "bias": normal(COLS), "gate": normal(ROWS, COLS)}
        self.operands["scale"] = torch.tensor(scale, device=device).bfloat16().double()
        taken = inspect.signature(self.package.apply).parameters
        values = self.before(self.x, self.operands)
        self.names = [name for name in OPERANDS if name in taken]
        self.target = {"target": values.argmax(-1)} if "target" in taken else {}
        self.reach = max(1.0, values.abs().max().item())
        self.cotangent = normal(*self.after(values).shape)
        self.second = normal(ROWS, COLS)

    def original(self, x: Tensor, operands: Mapping[str, Tensor]) -> Tensor:
        return self.after(self.before(x, operands))

    def fused(self, x: Tensor, operands: Mapping[str, Tensor]) -> Tensor:
        return self.package.apply(x, **operands, **self.target)

    def derivatives(self, dtype: torch.dtype, *, by_torch: bool) -> list[Tensor]:
        """Return the value, its gradients, and the gradients of the gradient of x, in float64."""
        x = self.x.to(dtype).requires_grad_()
        given = {n: self.operands[n].to(dtype).requires_grad_() for n in self.names}
        call = self.original if by_torch else self.fused
        y = call(x, given)
        leaves = [x, *given.values()]
        first = torch.autograd.grad(y, leaves, self.cotangent.to(y.dtype), create_graph=True)
        found = [y, *first]
        if first[0].requires_grad:
            found += torch.autograd.grad(
                first[0], leaves, self.second.to(dtype), allow_unused=True, materialize_grads=True
            )
        return [t.detach().double() for t in found]

    def sizes(self) -> list[float]:
        """Return the largest value, and of each gradient the largest sum of the magnitudes in it."""
        x = self.x.clone().requires_grad_()
        spread = {n: self.operands[n].expand_as(x).clone().requires_grad_() for n in self.names}
        y = self.original(x, spread)
        grads = torch.autograd.grad(y, [x, *spread.values()], self.cotangent)
        found = [y.abs().max(), grads[0].abs().max()]
        for name, grad in zip(self.names, grads[1:], strict=True):
            found.append(grad.abs().sum_to_size(self.operands[name].shape).max())
        return [t.item() for t in found]


@pytest.mark.parametrize(("name", "dtype", "device"), dtypes_on_devices(CASES, COMPILED))
@pytest.mark.parametrize("scale", [1e-6, 14.3, 100.0, 1e4, 1e10, 1e14])
def test_derivatives_fit_what_was_saved(
    name: str, scale: float, dtype: torch.dtype, device: str, reductions: Path
) -> None:
    """Values and first derivatives are at most twice as far from float64 truth as torch's own in the dtype.

    An error is held against the magnitudes that were added up, and in float64, where torch is the truth,
    against the rounding of what is reduced. Second derivatives add up terms of the square of the scale: that
    of x is held where these are not large, and all must be finite where torch's are.
    """
    if scale > torch.finfo(dtype).max:
        pytest.skip(f"{scale} is infinite in {dtype}")
    case = Case(reductions, name, scale, device)
    ours = case.derivatives(dtype, by_torch=False)
    eager = case.derivatives(dtype, by_torch=True)
    truth = case.derivatives(torch.float64, by_torch=True)
    sizes = case.sizes()
    eps = torch.finfo(dtype).eps * (case.reach if dtype == torch.float64 else 1)
    for number, (mine, theirs, right) in enumerate(zip(ours, eager, truth, strict=True)):
        sane = right.isfinite() & theirs.isfinite()
        assert mine[sane].isfinite().all(), number
        if sane.any() and (number < len(sizes) or (number == len(sizes) and scale < 100)):
            error, allowed = (t[sane].abs().max().item() for t in (mine - right, theirs - right))
            size = sizes[number] if number < len(sizes) else right[sane].abs().max().item()
            assert error <= 2 * allowed + 32 * eps * size, (number, error, allowed)


def expanded(kernel: Kernel, name: str, saved: set[str]) -> str | None:
    """Return the code of a value with what it reads written out, down to inputs and saved values."""
    lines: dict[str, str] = {}
    for part in kernel.parts:
        stages = [line for s in part.stages for line in (*s.row_lines, *s.lines)]
        for line in (*part.col_lines, *part.scalar_lines, *stages):
            if line.name.partition(".")[2] not in saved:
                lines.setdefault(line.name, line.code.text)

    def wrapped(code: str) -> str:
        call = re.match(r"[\w:.<>]*\(", code)
        depths = accumulate((c == "(") - (c == ")") for c in code[call.end() :]) if call else ()
        ends = call.end() + next(n for n, d in enumerate(depths) if d < 0) + 1 if call else 0
        return code if ends == len(code) or re.fullmatch(r"[\w.]+", code) else f"({code})"

    def inlined(code: str) -> str:
        return re.sub(
            r"(?<![\w:.])(?:live\.)?((?:row|col|scalar)\.\w+|\w+)(?![\w(.])",
            lambda found: wrapped(inlined(lines[found[1]])) if found[1] in lines else found[1],
            code,
        )

    return inlined(lines[name]) if name in lines else None


SHIPPED = sorted((ROOT / "specs").glob("*.yaml"))


@pytest.mark.parametrize("name", [*CASES, *(path.stem for path in SHIPPED)])
def test_operators_share_the_arithmetic_of_what_is_saved(name: str, tmp_path: Path) -> None:
    """What every value that a saved one follows from is computed by, operator for operator."""
    path = ROOT / "specs" / f"{name}.yaml"
    if name in CASES:
        path = tmp_path / f"{name}.yaml"
        path.write_text(spec_text(*CASES[name]))
    for mode in (mode for segment in pipeline.derive(path).segments for mode in segment.modes):
        forward, *derivatives = mode.kernels
        saved = {value.name for value in mode.saved}
        for value in reproduced(mode.programs[0]):
            wanted = expanded(forward, value, saved)
            for kernel in derivatives:
                found = expanded(kernel, value, saved)
                assert found in (None, wanted) or wanted is None, (kernel.name, value)
