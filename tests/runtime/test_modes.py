"""Dispatch and function modes, FLOP counters, fake and meta tensors see the operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import NAMES
from shared.originals import ORIGINALS
from shared.torch_calls import Package, modules, whole
from test_transforms import Derived, both, close
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_a_dispatch_mode_sees_both_directions(
    name: str, package: Package, derived: Derived
) -> None:
    fused, eager, given = both(name, package, derived)
    leaves = [t.clone().requires_grad_() for t in given]
    with Calls() as calls:
        out = fused(*leaves)
        gradients = torch.autograd.grad(out.square().sum(), leaves)
    operators = [call for call in calls.seen if call.startswith(package(name)._chain.namespace)]
    assert [o.split(".")[1][:4] for o in operators] == ["forw", "back"]
    same = [t.clone().requires_grad_() for t in given]
    close(gradients, torch.autograd.grad(eager(*same).square().sum(), same))


class Functions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_function_mode_sees_the_operator(package: Package, derived: Derived) -> None:
    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    with Functions() as functions:
        out = fused(*given)
    operator = f"{package('matmul_gelu_softmax')._chain.namespace}.forward"
    assert any(operator in call for call in functions.seen)
    close(out, eager(*given))


def test_the_default_device_is_no_detour(package: Package, derived: Derived) -> None:
    """`torch.set_default_device` is a mode too, which has nothing to say of an operator."""
    from fusegen.runtime.observers import unseen

    fused, eager, given = both("matmul_gelu_softmax", package, derived)
    with torch.device("cpu"):
        assert unseen()
        close(fused(*given), eager(*given))
        with Functions():
            assert not unseen()
    assert unseen()


def test_a_profiler_changes_no_conversion() -> None:
    """It sees operators; torch's own copy in their place would show times that no other call takes."""
    from fusegen.runtime.observers import unseen, untraced

    with profile(activities=[ProfilerActivity.CPU]):
        assert untraced()
        assert not unseen()
    with Functions():
        assert not untraced()


@pytest.mark.parametrize("name", ORIGINALS)
def test_flop_counter(name: str, package: Package) -> None:
    """The product counts, also under the name of the layer that it is of."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for model in modules(name, package):
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(5, 24)).sum().backward()
        by_module = counter.get_flop_counts()
        layers = {k.split(".", 1)[1]: v for k, v in by_module.items() if "." in k}
        counts.append((counter.get_total_flops(), {k: v for k, v in layers.items() if v}))
    assert counts[0] == counts[1] and counts[0][0] > 0


@pytest.mark.parametrize("name", NAMES)
def test_fake_tensors(name: str, package: Package, derived: Derived) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    fused, eager, given = whole(name, package, derived)
    moving = [True, *(o.differentiable for o in derived(name).operands)]
    with FakeTensorMode() as mode:
        leaves = [mode.from_tensor(t).requires_grad_(m) for t, m in zip(given, moving, strict=True)]
        out = fused(*leaves)
        wanted = [t for t in leaves if t.requires_grad]
        gradients = torch.autograd.grad(out.sum(), wanted)
    assert out.shape == eager(*given).shape and out.dtype == torch.float64
    assert [g.shape for g in gradients] == [t.shape for t in wanted]
    assert fused(*leaves).shape == out.shape  # outside the mode


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ORIGINALS)
def test_meta(name: str, training: bool, package: Package) -> None:
    """A model made on the meta device: shapes, gradients, materialised afterwards."""
    arguments = ORIGINALS[name][1]
    with torch.device("meta"):
        fused = package(name).Module(*arguments).train(training)
        x = torch.randn(5, 24, requires_grad=True)
    assert {p.device.type for p in fused.parameters()} == {"meta"}
    out = fused(x)
    out.sum().backward()
    assert out.is_meta and out.shape == (5, 37) and x.grad is not None and x.grad.is_meta
    assert all(p.grad.shape == p.shape for p in fused.parameters())
    original, _ = modules(name, package)
    made = fused.eval().to_empty(device="cpu")
    made.load_state_dict(original.state_dict())
    x = torch.randn(5, 24)
    torch.testing.assert_close(made(x), original(x))


@pytest.mark.parametrize("name", ORIGINALS)
def test_device_and_dtype_of_the_constructor(name: str, package: Package) -> None:
    cls, arguments = ORIGINALS[name]
    torch.manual_seed(0)
    wanted = cls(*arguments).double()
    torch.manual_seed(0)
    model = package(name).Module(*arguments, device="cpu", dtype=torch.float64)
    for (key, a), b in zip(model.state_dict().items(), wanted.state_dict().values(), strict=True):
        assert a.dtype == b.dtype, key
    model.load_state_dict(wanted.state_dict())
    x = torch.randn(5, 24, dtype=torch.float64)
    close(model.eval()(x), wanted.eval()(x))
    empty = package(name).Module(*arguments, device="meta")
    assert {t.device.type for t in empty.state_dict().values()} == {"meta"}
