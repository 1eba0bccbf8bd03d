"""What torch can do with any module, done with generated ones: autocast, checkpoints, copies, pickles, …"""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, NAMES, ROOT
from shared.originals import ORIGINALS
from torch import nn

Package = Callable[[str], ModuleType]


def made(name: str, package: Package) -> tuple[nn.Module, nn.Module]:
    """Return the original and the generated module with the same parameters, in evaluation."""
    cls, arguments = ORIGINALS[name]
    original = cls(*arguments).eval()
    fused: nn.Module = package(name).Module(*arguments).eval()
    fused.load_state_dict(original.state_dict())
    return original, fused


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ORIGINALS)
def test_autocast(name: str, dtype: torch.dtype, device: str, package: Package) -> None:
    """The result has eager's dtype, that of the product or of a parameter; parameters stay float32."""
    original, fused = (m.to(device) for m in made(name, package))
    x = torch.randn(16, 24, device=device)
    with torch.autocast(device, dtype=dtype):
        wanted, got = original(x), fused(x)
    assert got.dtype is wanted.dtype
    torch.testing.assert_close(got.float(), wanted.float(), rtol=2e-2, atol=2e-2)
    got.float().square().sum().backward()
    wanted.float().square().sum().backward()
    for (key, a), b in zip(fused.named_parameters(), original.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert a.grad.dtype == torch.float32
        error = (a.grad - b.grad).norm() / b.grad.norm()
        assert error < 4 * torch.finfo(dtype).eps, f"{key}: {error}"


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ORIGINALS)
def test_checkpoint(name: str, reentrant: bool, package: Package) -> None:
    """The second forward pass draws the same bits, so gradients are those without checkpointing."""
    _, fused = made(name, package)
    if name == "matmul_dropout_softmax":
        fused.train()
    x = torch.randn(4, 24, requires_grad=True)

    def gradients(checkpointed: bool) -> list[torch.Tensor]:
        torch.manual_seed(9)
        out = (
            torch.utils.checkpoint.checkpoint(fused, x, use_reentrant=reentrant)
            if checkpointed
            else fused(x)
        )
        fused.zero_grad()
        x.grad = None
        out.square().sum().backward()
        return [t.grad.clone() for t in (x, *fused.parameters()) if t.grad is not None]

    for got, wanted in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", ORIGINALS)
def test_inference_mode_and_no_grad(name: str, package: Package) -> None:
    _, fused = made(name, package)
    x = torch.randn(4, 24)
    wanted = fused(x)
    with torch.inference_mode():
        got = fused(x)
    assert got.is_inference() and torch.equal(got, wanted)
    with torch.no_grad():
        assert torch.equal(fused(x), wanted)


@pytest.mark.parametrize("name", ORIGINALS)
def test_deepcopy_pickle_and_save(name: str, package: Package) -> None:
    _, fused = made(name, package)
    x = torch.randn(4, 24)
    wanted = fused(x)
    buffer = io.BytesIO()
    torch.save(fused, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(fused),
        pickle.loads(pickle.dumps(fused)),
        torch.load(buffer, weights_only=False),
    ]
    for other in copies:
        assert torch.equal(other(x), wanted)
        for a, b in zip(other.parameters(), fused.parameters(), strict=True):
            assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()


WRITE = """
import sys, torch
from generated.matmul_gelu_softmax import Module
torch.manual_seed(0)
torch.save(Module(3, 5), sys.argv[1])
"""
READ = """
import sys, torch
model = torch.load(sys.argv[1], weights_only=False)
assert model(torch.ones(2, 3)).shape == (2, 5)
assert "fusegen.runtime" in sys.modules and "sympy" not in sys.modules
"""


@pytest.mark.slow
def test_a_saved_module_is_loaded_by_a_process_that_knows_nothing_of_it(
    generated: Path, tmp_path: Path
) -> None:
    assert generated.name == "generated"
    for program in (WRITE, READ):
        command = [sys.executable, "-c", program, str(tmp_path / "model.pt")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_profiles_show_the_operators_by_name(package: Package) -> None:
    _, fused = made("matmul_gelu_softmax", package)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        fused(torch.randn(4, 24)).sum().backward()
    names = {e.key for e in profile.key_averages()}
    space = package("matmul_gelu_softmax")._chain.namespace
    assert {f"{space}::forward", f"{space}::backward"} <= names


@pytest.mark.parametrize("name", NAMES)
def test_a_dispatch_mode_sees_the_operators(name: str, package: Package) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    chain = package(name)._chain
    shapes = {"full": (2, 4), "col": (4,), "row": (2, 1), "scalar": (1,)}
    operands = {o.name: torch.rand(shapes[o.kind]) for o in chain.operands}
    with Watch():
        package(name).apply(torch.randn(2, 4), **operands)
    assert any(f"{chain.namespace}.forward" in call for call in seen)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ORIGINALS)
def test_cuda_graphs_capture_both_directions(name: str, package: Package) -> None:
    """Replays follow new inputs; dropout draws fresh bits in each, the same in both directions."""
    _, fused = made(name, package)
    fused = fused.cuda()
    if name == "matmul_dropout_softmax":
        fused.train()
    x = torch.randn(16, 24, device="cuda", requires_grad=True)
    leaves = [x, *fused.parameters()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            torch.autograd.grad(fused(x).square().sum(), leaves)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = fused(x)
        gradients = torch.autograd.grad(out.square().sum(), leaves)
    seen = []
    for _ in range(2):
        with torch.no_grad():
            x.copy_(torch.randn_like(x) if not fused.training else x)
        graph.replay()
        seen.append(out.clone())
        if not fused.training:
            wanted = fused(x)
            torch.testing.assert_close(out, wanted)
            expected = torch.autograd.grad(wanted.square().sum(), leaves)
            for a, b in zip(gradients, expected, strict=True):
                torch.testing.assert_close(a, b)
    assert not torch.equal(*seen)
