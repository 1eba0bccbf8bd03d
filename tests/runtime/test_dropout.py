"""Dropout: its bits, its seed, its backward, and that nothing but the seed and an element's place decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, ROOT, built_alone, derive
from shared.layouts import channels_last, copied
from torch import Tensor
from torch.func import jvp, vmap

from fusegen import load
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify
from fusegen.tools.check.philox import uniform
from fusegen.tools.check.reference import run_chain

Package = Callable[[str], ModuleType]
NAME = "matmul_dropout_softmax"


def test_philox_is_philox() -> None:
    """The known answers of Random123's kat_vectors for philox4x32-7: zero counter and key."""
    words = [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]
    wanted = [half * 2.0**-16 for word in words for half in (word & 0xFFFF, word >> 16)]
    assert uniform(0, 0, (8,)).tolist() == wanted


def dropped(
    package: Package, seed: int, shape: tuple[int, int], device: str, p: float = 0.3
) -> torch.Tensor:
    """Return where the kernel drops: a dropped logit is 0, the others are far above."""
    x = torch.full(shape, 40.0, device=device)
    bias = torch.zeros(shape[1], device=device)
    out = package(NAME).apply(x, bias, dropout_p=p, training=True, seed=seed)
    return (out < out.amax(dim=1, keepdim=True) / 2).cpu()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(5, 4), (5, 7), (3, 1023), (2, 4096), (2, 20000)], ids=str)
def test_the_bits_are_those_of_seed_and_index(
    shape: tuple[int, int], device: str, package: Package
) -> None:
    """Whatever the tiling, on every device: the mask is the independent Philox's."""
    for seed in (0, 1, 2**40 + 17, -3):
        wanted = uniform(seed & (2**64 - 1), 0, shape) < 0.3
        assert torch.equal(dropped(package, seed, shape, device), wanted)


def test_the_rate_is_p(package: Package) -> None:
    mask = dropped(package, 11, (200, 1000), "cpu", p=0.2)
    assert abs(mask.double().mean().item() - 0.2) < 4 * (0.2 * 0.8 / mask.numel()) ** 0.5


@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward_agree_for_every_layout(device: str, package: Package) -> None:
    """The gradient is zero exactly where the forward dropped, also for non-contiguous inputs."""
    shape = (6, 40)
    wanted = dropped(package, 5, shape, device)
    base = torch.randn(40, 6, device=device)
    for x in (base.t(), base.t().contiguous(), torch.cat([base.t(), base.t()], 1)[:, :40]):
        leaf = x.detach().requires_grad_()
        bias = torch.zeros(40, device=device)
        out = package(NAME).apply(leaf, bias, dropout_p=0.3, training=True, seed=5)
        (gradient,) = torch.autograd.grad(out, leaf, torch.randn_like(out))
        assert torch.equal((gradient == 0).cpu(), wanted)


@pytest.mark.parametrize("op", ["dropout", "alpha_dropout"])
def test_a_draw_belongs_to_the_place_in_memory(op: str, vocabulary: Path) -> None:
    """What lies without gaps is not copied, and draws as the same memory does in any other shape: in the
    value, in its derivatives, in forward mode and for each member of a batch."""
    apply = load(f"only_{op}_0", vocabulary / "generated").apply

    def drawn(x: Tensor) -> Tensor:
        result: Tensor = apply(x, training=True, seed=7)
        return result

    def run(*given: Tensor) -> list[Tensor]:
        x, along = (t.detach().requires_grad_() for t in given[:2])
        out = drawn(x)
        (gradient,) = torch.autograd.grad(out, x, along, create_graph=True)
        (second,) = torch.autograd.grad(gradient, along, given[2])
        return [out, gradient, second, jvp(drawn, (given[0],), (given[3],))[1]]

    x = channels_last(torch.randn(3, 19, 5, 7))
    given = [x, 2 * x, x.cos(), x.sin()]
    with torch.profiler.profile() as profile:
        found = run(*given)
    assert not copied(profile)
    moved = [t.movedim(1, -1) for t in given]
    for got, wanted in zip(found, run(*moved), strict=True):
        assert got.stride() == x.stride()
        assert torch.equal(got.movedim(1, -1), wanted)
    assert torch.equal(found[1] == 0, found[2] == 0)
    stack = torch.stack([x, 3 * x])  # each member lies as x does
    pull = torch.func.vjp(drawn, x)[1]
    for function in (drawn, lambda t: pull(t)[0]):
        for member, own in zip(vmap(function, randomness="same")(stack), stack, strict=True):
            assert torch.equal(member, function(own))


@pytest.mark.parametrize("device", DEVICES)
def test_dropout_after_a_reduction_over_channels_takes_no_copy(
    device: str, shaped_packages: Path
) -> None:
    """On channels-last activations: its bits, values and gradients."""
    name = "conv_transpose3d_log_softmax_dropout"
    package, chain = (
        load(name, shaped_packages),
        derive(ROOT / f"tests/chains/{name}.yaml"),
    )
    case = verify.make_case(chain, (3, 17, 2, 4, 4), training=True, device=device)
    numbers = {"dropout_p": 0.25}
    operands, seed = list(case.operands.values()), torch.tensor([5], device=device)
    cotangent = torch.randn(case.x.shape, dtype=torch.float64).to(device)
    x = channels_last(case.x).requires_grad_()
    lying = channels_last(cotangent)
    with torch.profiler.profile() as profile:
        out = package.apply(x, *operands, dropout_p=0.25, training=True, seed=seed)
        (gradient,) = torch.autograd.grad(out, x, lying)
    assert not copied(profile)
    assert out.stride() == gradient.stride() == x.stride()
    kept = uniform(5, 0, tuple(x.movedim(1, -1).shape)).movedim(-1, 1).to(device) >= 0.25
    leaf = case.x.clone().requires_grad_()
    wanted = run_chain(chain.spec, leaf, case.operands, numbers) * kept / 0.75
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, leaf, cotangent)[0])


def hold_rows(package: ModuleType, wanted: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Hold value and gradient against a function of x and of what dropout keeps of it."""
    for cols in (33, 2500):
        x = torch.randn(5, cols, dtype=torch.float64).requires_grad_()
        kept = uniform(5, 0, (5, cols)) >= 0.25
        cotangent = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).reshape(x.shape)
        found = []
        for out in (package.apply(x, training=True, seed=5), wanted(x, kept)):
            found.append((out, *torch.autograd.grad(out, x, cotangent)))
        torch.testing.assert_close(found[0], found[1])


def test_dropout_after_a_reduction_of_rows(tmp_path: Path) -> None:
    """A stage of a row draws for itself, in more than one block of columns, and in rows of fewer."""
    text = "order: 1\ndtypes: [float64]\nchain: [softmax, dropout: {p: 0.25}]\n"
    package = built_alone(tmp_path, "softmax_dropout", text, [torch.float64])
    hold_rows(package, lambda x, kept: x.softmax(-1) * kept / 0.75)


def test_stages_of_a_row_read_the_same_draws(tmp_path: Path) -> None:
    """The gradient of a norm reads the mask before and after its sums over the row."""
    text = "order: 1\ndtypes: [float64]\nchain: [dropout: {p: 0.25}, layer_norm]\n"
    package = built_alone(tmp_path, "dropout_layer_norm", text, [torch.float64])
    norm = torch.nn.functional.layer_norm
    hold_rows(package, lambda x, kept: norm(x * kept / 0.75, x.shape[-1:]))


def test_compiled_it_draws_the_same(shaped_packages: Path) -> None:
    """Inductor may lay out what it computes anew, but not what forward and backward draw by."""
    apply = load("conv_transpose3d_log_softmax_dropout", shaped_packages).apply
    convolution = torch.nn.Conv3d(3, 16, 2).to(memory_format=torch.channels_last_3d)
    bias, gate = torch.randn(16, 1, 1, 1), torch.rand(2, 1, 4, 4, 4)

    def model(x: Tensor, shift: Tensor) -> Tensor:
        x = torch.relu(convolution(x) + 5) + shift
        result: Tensor = apply(x, gate, bias, dropout_p=0.3, training=True, seed=5) * 2
        return result

    x, found = torch.randn(2, 3, 5, 5, 5), []
    for function in (model, torch.compile(model, fullgraph=True)):
        shift = torch.zeros(2, 16, 4, 4, 4, requires_grad=True)
        out = function(x, shift)
        along = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
        found.append((out, *torch.autograd.grad(out, shift, along)))
    for got, wanted in zip(*found, strict=True):
        assert got.stride() == channels_last(wanted).stride()
        torch.testing.assert_close(got, wanted)


def test_passes_of_a_mode_that_draws_agree_on_the_order() -> None:
    """Else the forward pass and a derivative that can take less would draw different bits."""
    segments = pipeline.derive(ROOT / "tests/segments/conv2d_amax_batch_norm_dropout.yaml").segments
    train, evaluation = segments[1].modes
    assert [kernel.memory_format for kernel in train.kernels] == ["packed", "strided"]
    assert train.memory_formats == ("packed", "packed")
    assert evaluation.memory_formats == ("strided", "strided")


@pytest.mark.parametrize("device", DEVICES)
def test_torchs_seed_makes_it_reproducible(device: str, package: Package) -> None:
    model = package(NAME).Module(8, 16, 0.5).to(device)
    x = torch.randn(4, 8, device=device)
    torch.manual_seed(3)
    first, second = model(x), model(x)
    torch.manual_seed(3)
    assert torch.equal(model(x), first)
    assert not torch.equal(first, second)


def test_eval_is_the_identity(package: Package) -> None:
    model = package(NAME).Module(8, 16, 0.5).eval()
    x = torch.randn(4, 8)
    wanted = torch.softmax(model.matmul(x), dim=1)
    torch.testing.assert_close(model(x), wanted)
    assert torch.equal(model(x), model(x))


def test_checkpointing_draws_the_same_bits_again(package: Package) -> None:
    model = package(NAME).Module(8, 16, 0.5)
    x = torch.randn(4, 8)
    torch.manual_seed(9)
    model(x).square().sum().backward()
    wanted = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.manual_seed(9)
    out = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
    out.square().sum().backward()
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)


def test_a_wrong_seed_is_refused(package: Package) -> None:
    x, bias = torch.randn(2, 4), torch.zeros(4)
    for seed in (1.5, "7", True, torch.zeros(2, dtype=torch.int64), torch.zeros(1)):
        with pytest.raises(TypeError, match="seed"):
            package(NAME).apply(x, bias, seed=seed)
    package(NAME).apply(x, bias, seed=torch.tensor(5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_each_replay_of_a_graph_draws_fresh_bits(package: Package) -> None:
    model = package(NAME).Module(16, 256, 0.5).cuda()
    x = torch.randn(8, 16, device="cuda")
    with torch.no_grad():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            model(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = model(x)
        graph.replay()
        first = out.clone()
        graph.replay()
    assert not torch.equal(first, out)
