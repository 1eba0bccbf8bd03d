"""Generated packages in torch's compilers: opcheck, torch.compile, torch.export, AOTInductor."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from conftest import NAMES, ROOT
from shared.originals import ORIGINALS
from torch import Tensor, nn

from fusegen.chain import Chain
from fusegen.tools.check import verify

Package = Callable[[str], ModuleType]
Derived = Callable[[str], Chain]
#: Inductor takes seconds a model: one of them, which draws random numbers in training.
COMPILED = [
    *((name, "aot_eager") for name in ORIGINALS),
    ("matmul_dropout_softmax", "inductor"),
]


def operator_calls(
    name: str, training: bool, package: Package, derived: Derived
) -> list[tuple[Any, tuple[Any, ...]]]:
    """Return each operator of a mode with arguments as a call gives them, all tensors with gradients."""
    chain = derived(name)
    case = verify.make_case(chain, (3, 5), training=training)
    operators = package(name)._chain.operators("same" if len(chain.modes) == 1 else _mode(training))
    by_name = {"x": case.x, **case.operands}
    mode = next(m for m in chain.modes if m.name in ("same", _mode(training)))
    tensors = [by_name[i.name] for i in mode.programs[0].inputs if i.source == "tensor"]
    numbers = [case.options[i.name] for i in mode.programs[0].inputs if i.source == "attribute"]
    extras = [torch.tensor([7])] * mode.random + numbers
    calls, statistics = [], ()
    for operator in operators:
        given = [t.clone().requires_grad_() for t in tensors]
        args = operator.arguments(given, statistics, extras)
        calls.append((operator.overload, args))
        out = operator.run(args)
        out = (out,) if isinstance(out, Tensor) else tuple(out)
        if operator.order == 0:
            statistics = out[1:]
        tensors += [torch.randn_like(t) for t in out[: len(operator.like)]]
    return calls


def _mode(training: bool) -> str:
    return "train" if training else "eval"


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name: str, package: Package, derived: Derived) -> None:
    """Schemas, fake kernels, autograd, and AOTAutograd with dynamic shapes, of every operator."""
    for training in (False, True) if len(derived(name).modes) == 2 else (False,):
        *differentiable, last = operator_calls(name, training, package, derived)
        for operator, args in differentiable:
            torch.library.opcheck(operator, args)
        operator, args = last  # it has no derivative any more
        plain = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
        torch.library.opcheck(operator, plain)


def reset() -> None:
    torch._dynamo.reset()


def step(model: Callable[[Tensor], Tensor], leaves: list[Tensor], x: Tensor) -> list[Tensor]:
    out = model(x)
    gradients = torch.autograd.grad(out.square().sum(), leaves)
    return [out.detach(), *gradients]


@pytest.mark.parametrize(("name", "backend"), COMPILED)
def test_torch_compile_of_a_model_around_it(name: str, backend: str, package: Package) -> None:
    """One graph, no break, and one compilation for all batch sizes: values and gradients as uncompiled."""
    reset()
    _, arguments = ORIGINALS[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 24), package(name).Module(*arguments), nn.ReLU())
    if name != "matmul_dropout_softmax" or backend == "aot_eager":
        model.eval()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    leaves = list(model.parameters())
    step(compiled, leaves, torch.randn(4, 9))
    frames = counter.frame_count  # 2 where dynamo starts anew because a float is no tensor
    for rows in (5, 8, 33):
        x = torch.randn(rows, 9)
        if model.training:
            out = step(compiled, leaves, x)[0]  # fresh bits at each call
            assert not torch.equal(out, step(compiled, leaves, x)[0])
            continue
        for got, wanted in zip(step(compiled, leaves, x), step(model, leaves, x), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert counter.frame_count == frames


def test_compiled_dropout_is_reproducible_and_drops_alike_in_both_directions(
    package: Package,
) -> None:
    reset()
    apply = package("matmul_dropout_softmax").apply
    bias = torch.zeros(400)
    compiled = torch.compile(lambda x: apply(x, bias, dropout_p=0.5), fullgraph=True)
    x = torch.full((3, 400), 40.0, requires_grad=True)
    torch.manual_seed(3)
    first = compiled(x)
    (gradient,) = torch.autograd.grad(first, x, torch.randn_like(first))
    dropped = first < first.amax() / 2
    assert 0.4 < dropped.double().mean() < 0.6
    assert torch.equal(gradient == 0, dropped)
    torch.manual_seed(3)
    assert torch.equal(compiled(x), first)


def test_dynamic_shapes_in_apply(package: Package) -> None:
    """The chain itself, compiled over leading dims and rows that vary, with an attribute that does."""
    reset()
    apply = package("temperature_softmax").apply
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(
        lambda x: apply(x * 2, temperature=0.5), fullgraph=True, dynamic=True, backend=counter
    )
    for shape in ((4, 7), (5, 9), (12, 31)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), torch.softmax(x * 4, dim=-1))
    assert counter.frame_count == 1


def exported(name: str, package: Package) -> tuple[torch.export.ExportedProgram, nn.Module]:
    _, arguments = ORIGINALS[name]
    model = package(name).Module(*arguments).eval()
    rows = torch.export.Dim("rows", min=2, max=1024)
    program = torch.export.export(model, (torch.randn(6, 24),), dynamic_shapes=({0: rows},))
    return program, model


@pytest.mark.parametrize("name", ORIGINALS)
def test_torch_export(name: str, package: Package, tmp_path: Path) -> None:
    program, model = exported(name, package)
    operators = [str(n.target) for n in program.graph.nodes if "fusegen_" in str(n.target)]
    assert len(operators) == 1
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    x = torch.randn(11, 24)
    torch.testing.assert_close(loaded(x), model(x))


RUN = """
import sys, torch
torch.ops.load_library(sys.argv[1])
model = torch._inductor.aoti_load_package(sys.argv[2])
x, wanted = torch.load(sys.argv[3])
torch.testing.assert_close(model(x), wanted)
assert "fusegen" not in sys.modules
"""


def test_aot_inductor(package: Package, generated: Path, tmp_path: Path) -> None:
    """A package that runs where only torch and the operators' library are."""
    program, model = exported("matmul_gelu_softmax", package)
    file = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "model.pt2")
    )
    x = torch.randn(13, 24)
    torch.save((x, model(x).detach()), tmp_path / "case.pt")
    library = generated / "matmul_gelu_softmax" / "_cpu.so"
    command = [sys.executable, "-c", RUN, str(library), file, str(tmp_path / "case.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
