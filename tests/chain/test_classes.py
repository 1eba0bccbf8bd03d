"""Losses of classes in activations of three dims and more: the classes are dim 1, as torch has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import DEVICES, derive, dtypes_on_devices, once, shared
from random_programs.build import build_specs, in_turn
from shared.layouts import channels_last
from torch import Tensor, distributed, nn
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
from torch.func import grad, jvp, vmap
from torch.nn import functional

from fusegen import load
from fusegen.base.errors import SpecError
from fusegen.chain import Chain
from fusegen.toolchain import pipeline
from fusegen.tools.bench import plain
from fusegen.tools.check import verify
from fusegen.tools.check.reference import run_chain

Built = Callable[[str], tuple[Chain, ModuleType]]

_WEIGHTED = "operands: {target: {kind: row, dtype: int64}, weight: channel}\n"
_PLAIN = "operands: {target: {kind: row, dtype: int64}}\n"
_CONV = "arguments: {in_channels: int, out_channels: int, kernel_size: int}\n"
_NORMED = "  - conv2d: {name: conv}\n  - batch_norm: {name: bn}\n"
_OPTIONS: dict[str, dict[str, Any]] = {
    "mean_4": {"ignore_index": 1},
    "none_4": {"reduction": "none", "ignore_index": 0},
    "smooth_5": {"reduction": "sum", "label_smoothing": 0.1},
    "smooth_weighted_4": {"label_smoothing": 0.2, "ignore_index": 1},
    "nll_4": {},
    "nll_none_3": {"reduction": "none"},
    "conv_none": {"ignore_index": 2},
}


def _loss(op: str, name: str, operands: str) -> str:
    settings = {"target": "target", **_OPTIONS[name]}
    settings |= {"weight": "weight"} if operands == _WEIGHTED else {}
    listed = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return f"dims: {name[-1]}\n{operands}chain:\n  - {op}: {{{listed}}}\n"


#: Losses alone, each of which is one call of torch's function.
LOSSES = {
    "mean_4": _loss("cross_entropy", "mean_4", _WEIGHTED),
    "none_4": _loss("cross_entropy", "none_4", _PLAIN),
    "smooth_5": _loss("cross_entropy", "smooth_5", _PLAIN),
    "smooth_weighted_4": _loss("cross_entropy", "smooth_weighted_4", _WEIGHTED),
    "nll_4": _loss("nll_loss", "nll_4", _WEIGHTED),
    "nll_none_3": _loss("nll_loss", "nll_none_3", _WEIGHTED),
}
#: After a convolution, before steps that go on with the loss of each row, and what else has columns.
CHAINS = {
    "conv_mean": f"{_CONV}{_PLAIN}chain:\n  - conv2d: {{name: conv}}\n  - cross_entropy: target\n",
    "conv_none": f"order: 1\n{_CONV}{_PLAIN}chain:\n{_NORMED}"
    "  - cross_entropy: {target: target, reduction: none, ignore_index: 2}\n",
    "goes_on": "dims: 4\noperands: {target: {kind: row, dtype: int64}, focus: row}\nchain:\n"
    "  - gelu\n  - cross_entropy: {target: target, reduction: none}\n  - mul: focus\n  - mean: {dim: 2}\n",
    "causal": "dims: 4\noperands: {position: {kind: row, dtype: int64}}\nchain:\n"
    "  - causal_mask: position\n  - softmax: {dim: 1}\n",
    "masked_alone": "dims: 4\noperands: {position: {kind: row, dtype: int64}}\nchain:\n"
    "  - causal_mask: position\n",
}
SHAPES: dict[int, list[tuple[int, ...]]] = {
    3: [(1, 1, 1), (3, 5, 31), (2, 33, 8), (2, 3, 4099), (9, 64, 1)],
    4: [(1, 2, 1, 1), (2, 5, 3, 7), (3, 33, 4, 4), (2, 21, 33, 129), (1, 1025, 3, 1)],
    5: [(1, 2, 1, 1, 1), (2, 3, 2, 3, 5), (3, 17, 2, 4, 4)],
}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Gives a chain of this file and its package, built once for all workers."""
    folder = shared(tmp_path_factory) / "classes"

    def build() -> None:
        folder.mkdir()
        for name, text in (LOSSES | CHAINS).items():
            (folder / f"{name}.yaml").write_text(text)
        build_specs(sorted(folder.glob("*.yaml")), folder / "out", dtypes=in_turn(LOSSES | CHAINS))

    once(tmp_path_factory, "classes", build)
    return lambda name: (derive(folder / f"{name}.yaml"), load(name, folder / "out"))


def by_torch(name: str, x: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Return a loss of `LOSSES` by torch's function."""
    function = functional.nll_loss if name.startswith("nll") else functional.cross_entropy
    result: Tensor = function(x, target, weight, **_OPTIONS[name])
    return result


def targets(name: str, case: verify.Case) -> Tensor:
    """Return a case's targets, a third of them ignored, but not all."""
    target = case.operands["target"].clone()
    ignored = _OPTIONS.get(name, {}).get("ignore_index", -100)
    target.view(-1)[0] = 1 if ignored == 0 else 0
    target.view(-1)[1::3] = ignored
    return target


@pytest.mark.parametrize(
    ("name", "dtype", "device"), dtypes_on_devices([*LOSSES, *CHAINS], in_turn(LOSSES | CHAINS))
)
def test_every_shape(name: str, dtype: torch.dtype, device: str, built: Built) -> None:
    """Values and gradients against float64 truth, of targets among which some are ignored."""
    chain, package = built(name)
    for shape in SHAPES[chain.layout.rank]:
        for training in (False, True) if chain.moded else (False,):
            if training and shape[0] * shape[2] * shape[3] == 1:
                continue  # no variance
            case = verify.make_case(chain, shape, training=training, device=device)
            if "target" in case.operands:
                case.operands["target"] = targets(name, case)
            for error in verify.compare(package, chain, case, dtype):
                assert error.within, f"{shape}: {error}"


@pytest.mark.parametrize("name", [n for n in [*LOSSES, *CHAINS] if n != "masked_alone"])
def test_gradcheck(name: str, built: Built) -> None:
    chain, package = built(name)
    shape = (2, 3, 2, 3, 2)[: chain.layout.rank]
    if name == "causal":  # of what is masked there are no differences
        case = verify.make_case(chain, shape, training=False)
        case.operands["position"].fill_(2)
        verify.gradcheck(package, chain, training=False, case=case)
        return
    for training in (False, True) if chain.moded else (False,):
        case = verify.make_case(chain, shape, training=training)
        case.operands["target"] = targets(name, case)
        verify.gradcheck(package, chain, training=training, case=case)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("apart", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_torchs(name: str, apart: bool, device: str, built: Built) -> None:
    """Said once more by hand: the value and its gradient, with the weights as torch holds them, [C]."""
    chain, package = built(name)
    for shape in SHAPES[chain.layout.rank][1:]:
        case = verify.make_case(chain, shape, training=False, device=device)
        x = channels_last(case.x) if apart else case.x
        target, weight = targets(name, case), case.operands.get("weight")
        held = None if weight is None else weight.flatten()
        x.requires_grad_()
        value = package.apply(x, target, *([] if held is None else [held]))
        other = (
            case.x.detach().clone().requires_grad_()
        )  # torch has no gradient of nll_loss as it lies
        wanted = by_torch(name, other, target, held)
        along = torch.randn_like(wanted)
        (gradient,) = torch.autograd.grad(value, x, along)
        (expected,) = torch.autograd.grad(wanted, other, along)
        torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
        assert gradient.stride() == x.stride()


@pytest.mark.parametrize("name", ["none_4", "nll_none_3"])
def test_what_is_no_class_is_not_read(name: str, built: Built) -> None:
    """A wrong class makes its row NaN, an ignored one counts for nothing; neither gets a gradient."""
    chain, package = built(name)
    rank, ignored = chain.layout.rank, _OPTIONS[name].get("ignore_index", -100)
    target = torch.tensor([ignored, 1, -1, 5, -(2**40), 2**40, 4]).reshape(1, 7, *[1] * (rank - 3))
    x = torch.randn(1, 5, *target.shape[1:], dtype=torch.float64, requires_grad=True)
    weight = torch.rand(5, dtype=torch.float64)
    losses = package.apply(x, target, *[weight] * (len(chain.operands) - 1))
    known = torch.isin(target, torch.arange(5)) | (target == ignored)
    right = known & (target != ignored)
    assert losses.flatten()[0] == 0
    assert torch.equal(losses.isnan(), ~known)
    (gradient,) = torch.autograd.grad(losses[right].sum(), x)
    assert torch.equal((gradient != 0).any(dim=1), right)


def test_a_module_after_a_convolution(built: Built) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 6, 3).double()
    for name, reduction in (("conv_mean", "mean"), ("conv_none", "none")):
        _, package = built(name)
        model = package.Module(3, 6, 3).double().eval()
        model.conv.load_state_dict(conv.state_dict())
        x, target = torch.randn(2, 3, 6, 7, dtype=torch.float64), torch.randint(6, (2, 4, 5))
        target[0, 0] = 2
        logits = conv(x) if name == "conv_mean" else model.bn(conv(x))
        ignored = -100 if name == "conv_mean" else 2
        wanted = functional.cross_entropy(logits, target, reduction=reduction, ignore_index=ignored)
        torch.testing.assert_close(model(x, target), wanted, rtol=1e-9, atol=1e-12)
        found = torch.autograd.grad(model(x, target).sum(), model.conv.parameters())
        expected = torch.autograd.grad(wanted.sum(), [*conv.parameters()])
        for got, gradient in zip(found, expected, strict=True):
            torch.testing.assert_close(got, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["goes_on", "causal", "mean_4"])
def test_the_chain_by_hand_is_the_chain(name: str, built: Built) -> None:
    chain, _ = built(name)
    case = verify.make_case(chain, (2, 5, 3, 7), training=False)
    got = plain.tail(chain, {})(case.x, *case.operands.values())
    torch.testing.assert_close(got, run_chain(chain.spec, case.x, case.operands, {}))


def test_everybody_is_told_the_shape(built: Built) -> None:
    """Compilers, forward mode, and a batch of calls, whose targets become rows too."""
    _, package = built("none_4")
    x = torch.randn(2, 5, 3, 7, dtype=torch.float64, requires_grad=True)
    target = torch.randint(5, (2, 3, 7))
    forward, backward, _ = package._chain.operators("same")
    value, *statistics = forward.run((x, target))
    torch.library.opcheck(forward.overload, (x, target))
    cotangent = torch.randn_like(value).requires_grad_()
    torch.library.opcheck(backward.overload, (x, target, cotangent, *statistics))

    def run(x: Tensor, target: Tensor) -> Tensor:
        result: Tensor = package.apply(x, target)
        return result

    xs, all_targets = torch.randn(4, *x.shape).double(), torch.randint(5, (4, *target.shape))
    gradient = grad(lambda x, target: run(x, target).square().sum())
    for function in (run, gradient, lambda x, t: jvp(lambda x: run(x, t), (x,), (x,))[1]):
        wanted = torch.stack([*map(function, xs, all_targets)])
        torch.testing.assert_close(vmap(function)(xs, all_targets), wanted)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, target), run(x, target))


def sharded(rank: int, out: Path, store: Path) -> None:
    """Compare values and gradients of two shards with those of the whole; run in each of two processes."""
    method = f"file://{store}"
    distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    x = torch.randn(2, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    target = torch.randint(5, (2, 4, 6))
    package = load("none_4", out)
    wanted = package.apply(x, target)
    (expected,) = torch.autograd.grad(wanted.square().sum(), x)
    for dim, along in ((0, Shard(0)), (1, Replicate()), (2, Shard(1)), (3, Shard(2))):
        given = distribute_tensor(x.detach(), mesh, [Shard(dim)]).requires_grad_()
        value = package.apply(given, distribute_tensor(target, mesh, [along]))
        assert value.placements == ((Shard(0),) if dim == 0 else (Replicate(),))
        torch.testing.assert_close(value.full_tensor(), wanted)
        (gradient,) = torch.autograd.grad(value.square().sum(), given)
        torch.testing.assert_close(gradient.full_tensor(), expected)
    distributed.destroy_process_group()


def test_shards_have_their_own_targets(
    built: Built, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    built("none_4")
    out = shared(tmp_path_factory) / "classes" / "out"
    torch.multiprocessing.spawn(sharded, (out, tmp_path / "store"), nprocs=2)


@pytest.mark.parametrize(
    ("shape", "target", "message"),
    [
        ((2, 5, 3, 7), (2, 5, 3), r"target: expected shape \(2, 3, 7\) for x .*, got \(2, 5, 3\)"),
        ((2, 5, 3, 7), (2, 1, 3, 7), r"target: expected shape \(2, 3, 7\)"),
        ((2, 5, 3), (2, 3), r"x: expected 4 dims, got shape \(2, 5, 3\)"),
    ],
    ids=str,
)
def test_a_wrong_call_is_told(
    shape: tuple[int, ...], target: tuple[int, ...], message: str, built: Built
) -> None:
    with pytest.raises(ValueError, match=message):
        built("none_4")[1].apply(torch.randn(shape), torch.zeros(target, dtype=torch.int64))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dims: 4\noperands: {t: {kind: row, dtype: int64}, w: col}\nchain:\n"
            "  - nll_loss: {target: t, weight: w}\n",
            r"example.yaml:4: 'w' cannot broadcast: it is col \[cols\], but 'weight' of nll_loss is "
            r"channel \[channels\]: declare w: channel",
        ),
        (
            "dims: 4\noperands: {t: {kind: row, dtype: int64}}\nchain:\n  - nll_loss: t\n  - softmax: 1\n",
            "example.yaml:5: softmax: dim 1 does not exist: an earlier step has reduced to 0 dims",
        ),
        (
            "dims: 4\noperands: {t: {kind: row, dtype: int64}}\nchain:\n  - softmax: -1\n"
            "  - causal_mask: t\n  - nll_loss: t\n",
            "example.yaml:2: 't' is of kind row, which is another shape for nll_loss",
        ),
        (
            "dims: 3\noperands: {t: {kind: row, dtype: int64}}\nchain:\n"
            "  - nll_loss: {target: t, reduction: none}\n  - mean: {dim: 2}\n",
            "example.yaml:5: dim 2 does not exist",
        ),
    ],
    ids=["col", "one number", "two segments", "dropped"],
)
def test_a_mistake_is_told(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(text)
    with pytest.raises(SpecError, match=message):
        pipeline.derive(tmp_path / "example.yaml")
