"""Chains whose steps reduce over different dims: each segment a kernel of its own, together one Module."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, ROOT, constructor, derive, dtypes_of, dtypes_on_devices
from shared.layouts import channels_last
from shared.segment_originals import SEGMENTS
from shared.threads import threads
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

from fusegen import load
from fusegen.chain import Chain
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify
from fusegen.tools.check.reference import run_chain

Built = Callable[[str], tuple[Chain, ModuleType]]
SPECS = ROOT / "tests" / "segments"
#: Those with a second derivative.
TWICE = [name for name in SEGMENTS if "order: 1" not in (SPECS / f"{name}.yaml").read_text()]


@pytest.fixture(scope="session")
def built(segment_packages: Path) -> Built:
    """Gives the chain and the package of a spec in tests/segments."""
    return lambda name: (derive(SPECS / f"{name}.yaml"), load(name, segment_packages))


def modes(chain: Chain) -> tuple[bool, ...]:
    return (False, True) if chain.moded else (False,)


def pair(name: str, package: ModuleType, device: str = "cpu") -> tuple[nn.Module, nn.Module]:
    """Return the original and the generated module, made from the same seed."""
    cls, arguments, *_ = SEGMENTS[name]
    models = []
    for made in (cls, package.Module):
        torch.manual_seed(0)
        models.append(made(*arguments).double().to(device))
    return models[0], models[1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SEGMENTS)
def test_a_module_is_the_original(name: str, device: str, built: Built) -> None:
    """Constructor, state for a seed, value, every gradient and running averages, in both modes."""
    chain, package = built(name)
    wanted, got = (constructor(c) for c in (SEGMENTS[name][0], package.Module))
    assert [(p.name, p.default) for p in got.values()] == [
        (p.name, p.default) for p in wanted.values()
    ]
    for training in modes(chain):
        original, fused = pair(name, package, device)
        assert list(original.state_dict()) == list(fused.state_dict())
        for key, value in original.state_dict().items():
            assert torch.equal(value, fused.state_dict()[key]), key
        x = torch.randn(SEGMENTS[name][2], dtype=torch.float64).to(device)
        for model in (original, fused):
            model.train(training)
            for part in model.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0  # what it draws is not torch's
        for _ in range(2):  # twice: running averages move
            found = []
            for model in (original, fused):
                given = x.clone().requires_grad_()
                out = model(given)
                cotangent = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).to(device)
                along = cotangent.reshape(out.shape)
                found.append([out, *torch.autograd.grad(out, [given, *model.parameters()], along)])
            # torch's hardswish on CUDA multiplies by 1/6 as float32 has it.
            exact = not any(s.op and s.op.coarse for s in chain.spec.steps) or device == "cpu"
            tolerance = {"rtol": 1e-9, "atol": 1e-12} if exact else {"rtol": 1e-6, "atol": 1e-7}
            for expected, result in zip(*found, strict=True):
                torch.testing.assert_close(result, expected, **tolerance)
        for (key, a), b in zip(fused.named_buffers(), original.buffers(), strict=True):
            torch.testing.assert_close(a, b, msg=key)


@pytest.mark.parametrize(
    ("name", "dtype", "device"), dtypes_on_devices(SEGMENTS, dtypes_of("segments"))
)
def test_against_truth(name: str, dtype: torch.dtype, device: str, built: Built) -> None:
    """Every shape, mode and dtype, dropout's draws included: each segment has streams of its own.

    What one segment hands to the next is rounded to 16 bits, and equal values, as a mean's cotangents, alike:
    a sum of them is off by more than eight draws of such errors show.
    """
    chain, package = built(name)
    assert len(chain.segments) > 1
    for shape in SEGMENTS[name][3]:
        for training in modes(chain):
            case = verify.make_case(chain, shape, training=training, device=device)
            for error in verify.compare(package, chain, case, dtype):
                bound = 3 if torch.finfo(dtype).bits == 16 else error.bound
                assert error.units <= bound, f"{shape}, training={training}: {error}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SEGMENTS)
def test_gradcheck(name: str, device: str, built: Built) -> None:
    chain, package = built(name)
    for training in modes(chain):
        verify.gradcheck(package, chain, training=training, device=device)


@pytest.mark.parametrize("name", TWICE)
def test_transforms_and_compilers_see_through_the_segments(name: str, built: Built) -> None:
    """Forward mode, batches, batches of gradients and Hessian products are eager's; one graph compiled."""
    chain, package = built(name)
    case = verify.make_case(chain, SEGMENTS[name][3][1], training=False)
    numbers = {k: v for k, v in case.options.items() if k in (*chain.attributes, *chain.groups)}

    def fused(x: Tensor) -> Tensor:
        result: Tensor = package.apply(x, *case.operands.values(), **case.options)
        return result

    def eager(x: Tensor) -> Tensor:
        return run_chain(chain.spec, x, case.operands, numbers)

    functions = []
    for run in (fused, eager):
        loss = grad(lambda x, run=run: run(x).square().sum())
        product = lambda x, of=loss: jvp(of, (x,), (x.cos(),))[1]  # noqa: E731
        push = lambda x, of=run: jvp(of, (x,), (x.cos(),))[1]  # noqa: E731
        functions.append((run, loss, product, push))
    stack = torch.stack([case.x, case.x - 0.5, 2 * case.x])
    for ours, theirs in zip(*functions, strict=True):
        wanted = torch.stack([theirs(x) for x in stack])
        torch.testing.assert_close(vmap(ours)(stack), wanted, rtol=1e-8, atol=1e-10)
    torch._dynamo.reset()
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    leaves = [case.x.clone().requires_grad_() for _ in range(2)]
    values = [compiled(leaves[0]), fused(leaves[1])]
    for value in values:
        value.square().sum().backward()
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("name", SEGMENTS)
def test_strides_and_threads_do_not_matter(name: str, built: Built) -> None:
    chain, package = built(name)
    case = verify.make_case(chain, SEGMENTS[name][3][1], training=False)
    operands = list(case.operands.values())
    wanted = package.apply(case.x, *operands, **case.options)
    moved = case.x.transpose(0, 1).contiguous().transpose(0, 1)
    last = channels_last(case.x)
    for x in (moved, last, torch.stack([case.x, case.x], -1)[..., 0]):
        got = package.apply(x, *operands, **case.options)
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    with threads(1):
        again = package.apply(case.x, *operands, **case.options)
    assert torch.equal(again, wanted)


def test_a_batch_of_nothing(built: Built) -> None:
    for name in ("conv_transpose2d_min_sum_gelu_add", "conv3d_min_softmax"):
        chain, package = built(name)
        case = verify.make_case(chain, (0, *SEGMENTS[name][3][1][1:]), training=False)
        x = case.x.requires_grad_()
        out = package.apply(x, *case.operands.values())
        out.sum().backward()
        assert out.shape[0] == 0
        assert x.grad is not None
        assert x.grad.shape == x.shape


def test_what_is_drawn_in_one_segment_is_not_drawn_again_in_the_next(built: Built) -> None:
    """With one seed for both, a segment after that counted its streams from 0 would drop alike."""
    chain, _ = built("conv2d_amax_batch_norm_dropout")
    streams = [
        [i.stream for i in segment.modes[0].programs[0].inputs if i.source == "random"]
        for segment in chain.segments
    ]
    assert streams == [[0], [1], []]


def test_an_operand_of_a_later_segment_is_refused_in_its_terms(built: Built) -> None:
    chain, package = built("linear_group_norm_min_add")
    case = verify.make_case(chain, (3, 8), training=False)
    given = {**case.operands, "bias": torch.ones(7, dtype=torch.float64)}
    message = r"bias: expected shape \(8,\) for what reaches min of shape \(3, 8\), got \(7,\)"
    with pytest.raises(ValueError, match=message):
        package.apply(case.x, *given.values(), **case.options)


def test_each_batch_norm_has_its_own_weight(tmp_path: Path) -> None:
    """Running averages that two segments move: the second takes the second batch weight, and its own mean."""
    (tmp_path / "two_norms.yaml").write_text(
        "order: 1\narguments: {in_channels: int, out_channels: int, kernel_size: int}\nchain: [conv2d, "
        "batch_norm: {name: bn}, sum: {dim: [2, 3], keepdim: true}, batch_norm: {name: bn_2}]\n"
    )
    text = pipeline.render_package(tmp_path / "two_norms.yaml").files["__init__.py"]
    front, after = text.split("_segment2(\n")
    for number, (part, norm) in enumerate(((front, "bn"), (after, "bn_2"))):
        moved = re.search(rf"Average\(\s+{norm}_running_mean,\s+\d+,\s+(.*),\n", part)
        assert moved is not None and moved[1].endswith(f"else batch_weights[{number}]")


def test_show_names_the_segments() -> None:
    text = pipeline.derive(Path(SPECS / "conv3d_min_softmax.yaml")).describe()
    assert "forward_segment1(x: full, conv_bias: " in text
    assert "double_backward_segment2(kept_y: full, " in text
