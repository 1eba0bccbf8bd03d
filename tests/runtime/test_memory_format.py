"""Convolutions of generated Modules in channels-last: the same results, and when it is chosen."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT
from shared.shaped_originals import SHAPED
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import fusegen
from fusegen.chain.channels_last import reading_of
from fusegen.runtime import conversion, memory_format
from fusegen.runtime.conversion import _Converted as Converted
from fusegen.runtime.memory_format import in_memory_format, is_faster
from fusegen.toolchain.pipeline import derive

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
#: What becomes of the convolution's result in each chain.
READ = {
    "conv3d_leaky_relu_sum_gelu": "as it is",
    "conv_transpose2d_batch_norm_tanh": "as it is",
    "conv2d_channel_softmax_sigmoid": "as it is",
    "conv2d_prelu_tanh": "as it is",
    "conv2d_layer_norm_hardswish": "as it is",  # a norm over the channels
    "conv2d_group_norm_leaky_relu_double": "as it is",
}
#: On a CPU a conv3d of float64 returns a contiguous tensor.
WITHOUT_COPY = [name for name, reading in READ.items() if reading != "copied" and "3d" not in name]
#: The same of chains that reduce.
READ_IN_SEGMENTS = {
    "conv2d_mean_softmax_gate": "copied",  # the mean grows again, beside the convolution
    "conv3d_min_softmax": "as it is",
    "conv_transpose2d_mean_bias_logsumexp_sum_mul": "as it is",
    "conv_transpose2d_min_sum_gelu_add": "as it is",
    "conv2d_group_norm_tanh_hardswish_residual_logsumexp": "as it is",
    "conv_transpose3d_scale_batch_norm_subtract": "as it is",
    "conv2d_amax_batch_norm_dropout": "copied",
}
#: Convolutions by the shapes of x and the weight, and groups; and whether channels-last is faster in training
#: and without gradients.
RULE = [
    ((8, 64, 32, 32), (128, 64, 3, 3), 1, True, True),
    ((8, 16, 9, 9, 9), (32, 16, 3, 3, 3), 1, True, True),
    ((8, 64, 32, 32), (64, 1, 3, 3), 64, True, True),  # depthwise
    ((8, 64, 32, 32), (64, 16, 3, 3), 4, False, False),  # grouped
    ((8, 64, 32, 32), (32, 64, 3, 3), 1, False, True),  # half as many outputs
    ((8, 64, 32, 32), (32, 64, 1, 1), 1, True, True),
    ((8, 64, 32), (64, 64, 3), 1, False, False),
]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with fusegen.set_memory_format("auto"):
        yield


def made(name: str, packages: Path) -> tuple[nn.Module, list[Tensor]]:
    """Return a Module in training, in float64, and inputs."""
    _, arguments, shapes = SHAPED[name]
    torch.manual_seed(0)
    module = fusegen.load(name, packages).Module(*arguments).double().train()
    return module, [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def in_channels_last(name: str, packages: Path) -> tuple[nn.Module, nn.Module, list[Tensor]]:
    """Return a Module as it is on a CPU, a copy that runs in channels-last, and inputs."""
    module, inputs = made(name, packages)
    other = copy.deepcopy(module)
    other.memory_format = "channels_last"
    return module, other, inputs


def outcome(module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """Return a Module's value, its gradients, second derivatives, and buffers."""
    given = [x.clone().requires_grad_() for x in inputs]
    out = module(*given)
    leaves = [*given, *module.parameters()]
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    gradients = torch.autograd.grad(out, leaves, weights, create_graph=True)
    second = torch.autograd.grad(gradients[0].square().sum(), leaves, materialize_grads=True)
    return [out, *gradients, *second, *module.buffers()]


@pytest.mark.parametrize("name", READ)
def test_results_are_the_same(name: str, shaped_packages: Path) -> None:
    module, other, inputs = in_channels_last(name, shaped_packages)
    for _ in range(2):
        pairs = zip(outcome(module, inputs), outcome(other, inputs), strict=True)
        for wanted, got in pairs:
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)
    before, after = module.state_dict(), other.state_dict()
    assert list(before) == list(after)
    for key, value in before.items():
        assert value.stride() == after[key].stride(), key  # parameters stay as they are


def test_what_becomes_of_a_channels_last_result() -> None:
    for folder, chains in (("chains", READ), ("segments", READ_IN_SEGMENTS)):
        for name, reading in chains.items():
            assert reading_of(derive(ROOT / "tests" / folder / f"{name}.yaml")) == reading, name


@pytest.mark.parametrize("name", WITHOUT_COPY)
def test_the_result_is_channels_last_if_nothing_is_copied(name: str, shaped_packages: Path) -> None:
    _, module, inputs = in_channels_last(name, shaped_packages)
    for found in (module(*inputs), module.eval()(*inputs)):
        assert found.is_contiguous(memory_format=FORMATS[found.dim()])
        assert not found.is_contiguous()


@pytest.mark.parametrize("name", WITHOUT_COPY)
def test_chosen_where_it_pays(
    name: str, shaped_packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, by the attribute and by the setting; not where the kernels would copy."""
    module, inputs = made(name, shaped_packages)
    assert module(*inputs).is_contiguous()
    monkeypatch.setattr(memory_format, "is_faster", lambda x, *_: x.dim() in FORMATS)
    assert not module(*inputs).is_contiguous()
    with fusegen.set_memory_format("preserve"):
        assert module(*inputs).is_contiguous()
    assert not module(*inputs).is_contiguous()
    kept = copy.deepcopy(module)
    kept.memory_format = "preserve"
    assert kept(*inputs).is_contiguous()
    with fusegen.set_memory_format("channels_last"):
        assert kept(*inputs).is_contiguous()
    batched = torch.func.vmap(module.eval(), randomness="same")(torch.stack(inputs * 2))
    torch.testing.assert_close(batched[1], module(*inputs), rtol=1e-9, atol=1e-11)


def test_not_where_it_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_format, "is_faster", lambda *_: True)
    x, weight = torch.randn(2, 3, 4, 5), torch.randn(6, 3, 1, 1)

    def changed(*rest: Any, x: Tensor = x) -> bool:
        return not in_memory_format(x, weight, 1, *rest).is_contiguous()

    assert changed("auto", "as it is")
    assert not changed("auto", "copied")
    assert not changed("auto", "as it is", x=x[:, :1].contiguous())
    residual = torch.randn(2, 6, 4, 5)
    assert not changed("auto", "as it is", (residual,))
    assert changed("auto", "as it is", (residual.contiguous(memory_format=torch.channels_last),))
    with pytest.raises(ValueError, match="expected 'auto' or 'channels_last' or 'preserve'"):
        changed("nhwc", "as it is")
    with pytest.raises(ValueError, match="got 'contiguous'"):
        fusegen.set_memory_format("contiguous")  # type: ignore[arg-type]


@pytest.mark.parametrize(("x", "weight", "groups", "training", "inference"), RULE)
def test_the_rule(
    x: Any, weight: Any, groups: int, training: bool, inference: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with FakeTensorMode():
        for dtype in (torch.float32, torch.bfloat16):
            tensors = [torch.empty(s, device="cuda", dtype=dtype) for s in (x, weight)]
            # In 16 bits cuDNN transposes for all its kernels, so that what holds without gradients holds.
            wanted = inference if dtype is torch.bfloat16 else training
            assert is_faster(*tensors, groups) is wanted
            with torch.no_grad():
                assert is_faster(*tensors, groups) is inference
        single, double = (t.float() for t in tensors), [t.double() for t in tensors]
        assert not is_faster(*double, groups)
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        assert not is_faster(*single, groups)
    assert not is_faster(torch.empty(x), torch.empty(weight), groups)


def test_compiled_exported_and_traced(shaped_packages: Path) -> None:
    _, module, inputs = in_channels_last("conv2d_channel_softmax_sigmoid", shaped_packages)
    wanted = module.eval()(*inputs)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(module, tuple(inputs)).module()
    traced = torch.fx.symbolic_trace(module)
    recorded = torch.jit.trace(module, inputs[0])
    for call in (compiled, exported, traced, recorded):
        found = call(*inputs)
        assert found.stride() == wanted.stride()
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_conversion_hands_its_gradient_on() -> None:
    """In the format of what was converted: beside a gradient in another one, torch adds single elements."""
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    found = Converted.apply(
        lambda t: t.contiguous(memory_format=torch.channels_last), x, torch.contiguous_format
    )
    cotangent = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad((found.square() * cotangent).sum(), x, create_graph=True)
    assert gradient.is_contiguous()
    torch.testing.assert_close(gradient, 2 * x * cotangent)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    torch.testing.assert_close(second, 2 * cotangent)


def test_a_package_converts_the_sizes_that_it_was_built_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of bfloat16 alone does not stand in the way of one of float32."""
    monkeypatch.setattr(memory_format, "converters", {})
    monkeypatch.setattr(conversion, "converters", memory_format.converters)
    monkeypatch.setattr(conversion, "is_plain_on_gpu", lambda _: True)

    def package(name: str) -> Any:
        said = SimpleNamespace(default=lambda _: name)
        return SimpleNamespace(channels_last=said, channels_first=said)

    conversion.offer_converter(package("narrow"), [torch.bfloat16, torch.float16])
    conversion.offer_converter(package("wide"), [torch.float32, torch.bfloat16])
    x = torch.zeros(2, 3, 4, 5)
    assert memory_format.converted(x, torch.channels_last) == "wide"
    assert memory_format.converted(x.bfloat16(), torch.channels_last) == "narrow"
    last = x.contiguous(memory_format=torch.channels_last)
    assert memory_format.converted(last, torch.contiguous_format) == "wide"
    assert memory_format.converted(x.double(), torch.channels_last).is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [(5, 3, 257, 259), (3, 11, 150, 64), (2, 70, 129, 65), (3, 1030, 9, 11, 1), (2, 2, 70000, 1)],
)
def test_a_kernel_converts(shape: tuple[int, ...], dtype: torch.dtype, package: Any) -> None:
    """To channels-last, and back where kernels want a contiguous tensor."""
    apply = package("scale_softmax").apply
    assert memory_format.converters
    x = torch.randn(shape).to("cuda", dtype).requires_grad_()
    found = in_memory_format(x, x, 1, "channels_last", "copied")
    assert found.stride() == x.contiguous(memory_format=FORMATS[x.dim()]).stride()
    assert torch.equal(found, x)
    cotangent = torch.randn_like(x)
    (gradient,) = torch.autograd.grad(found, x, cotangent)
    assert torch.equal(gradient, cotangent)
    scale = torch.ones((), device="cuda", dtype=dtype)
    assert torch.equal(apply(found.detach(), scale), apply(x.detach(), scale))


def test_a_model_in_channels_last(shaped_packages: Path) -> None:
    """`to(memory_format=…)` changes the parameters, and nothing else."""
    module, inputs = made("conv2d_prelu_tanh", shaped_packages)
    wanted = module(*inputs)
    module.to(memory_format=torch.channels_last)
    found = module(*[x.contiguous(memory_format=torch.channels_last) for x in inputs])
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
