"""Chains on activations of three dims and more: every layout against float64 truth and torch's models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, ROOT, constructor, derive, dtypes_of, dtypes_on_devices
from shared.layouts import channels_last, copied
from shared.shaped_originals import SHAPED, doubled
from shared.threads import threads
from torch import Tensor, nn

from fusegen import load
from fusegen.base.errors import SpecError
from fusegen.chain import Chain
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify

Shaped = Callable[[str], tuple[Chain, ModuleType]]
CHAINS = ROOT / "tests" / "chains"
#: Activations by their number of dims: of one element, with odd runs, with 16-byte ones, with a long one.
SHAPES: dict[int, list[tuple[int, ...]]] = {
    2: [(1, 2), (3, 33), (31, 64), (65, 48), (5, 4099), (2, 7000)],
    3: [(1, 1, 1), (3, 5, 31), (2, 33, 8), (9, 64, 1), (2, 3, 4099)],
    4: [
        (1, 1, 1, 1),
        (2, 5, 3, 7),
        (3, 33, 4, 4),
        (2, 3, 33, 129),
        (5, 257, 1, 2),
        (1, 1025, 3, 1),
    ],
    5: [(1, 1, 1, 1, 1), (2, 3, 2, 3, 5), (3, 17, 2, 4, 4), (1, 2, 9, 17, 31)],
}


@pytest.fixture(scope="module")
def shaped(shaped_packages: Path) -> Shaped:
    """Gives the chain and the built package of a spec in tests/chains."""

    def of(name: str) -> tuple[Chain, ModuleType]:
        return derive(CHAINS / f"{name}.yaml"), load(name, shaped_packages)

    return of


def modes(chain: Chain) -> tuple[bool, ...]:
    return (False, True) if len(chain.modes) == 2 else (False,)


def shapes(chain: Chain) -> list[tuple[int, ...]]:
    """Return the shapes of a chain's x; a tensor of two halves is twice as long."""
    return [doubled(chain, shape) for shape in SHAPES[chain.layout.rank or 2]]


def usable(name: str, shape: tuple[int, ...], training: bool) -> bool:
    """Whether torch takes the shape: it refuses the variance of one value."""
    after = torch.Size(shape[2:]).numel()
    if "instance_norm" in name:
        return after > 1
    if "group_norm" in name:  # torch counts the batch too, as it does for a batch norm
        return shape[0] * shape[1] * after > 1
    return not (training and "batch_norm" in name) or shape[0] * after > 1


@pytest.mark.parametrize(
    ("name", "dtype", "device"), dtypes_on_devices(SHAPED, dtypes_of("chains"))
)
def test_every_shape(name: str, dtype: torch.dtype, device: str, shaped: Shaped) -> None:
    chain, package = shaped(name)
    for shape in shapes(chain):
        for training in modes(chain):
            case = verify.make_case(chain, shape, training=training, device=device)
            if not usable(name, chain.layout.half(shape), training):
                with pytest.raises(ValueError, match="expected more than one value"):
                    package.apply(case.x, **case.operands, **case.options)
                continue
            for error in verify.compare(package, chain, case, dtype):
                assert error.within, f"{shape}, training={training}: {error}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SHAPED)
def test_gradcheck(name: str, device: str, shaped: Shaped) -> None:
    chain, package = shaped(name)
    for training in modes(chain):
        verify.gradcheck(package, chain, training=training, device=device)


def pair(name: str, package: ModuleType) -> tuple[nn.Module, nn.Module]:
    """Return the original and the generated module, made from the same seed."""
    cls, arguments, _ = SHAPED[name]
    torch.manual_seed(0)
    original = cls(*arguments)
    torch.manual_seed(0)
    return original.double(), package.Module(*arguments).double()


@pytest.mark.parametrize("name", SHAPED)
def test_a_module_is_made_as_the_original(name: str, shaped: Shaped) -> None:
    _, package = shaped(name)
    wanted, got = constructor(SHAPED[name][0]), constructor(package.Module)
    assert [(p.name, p.default) for p in got.values()] == [
        (p.name, p.default) for p in wanted.values()
    ]
    original, fused = pair(name, package)
    assert list(original.state_dict()) == list(fused.state_dict())
    for key, value in original.state_dict().items():
        assert torch.equal(value, fused.state_dict()[key]), key


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", SHAPED)
def test_a_module_computes_what_the_original_does(
    name: str, training: bool, shaped: Shaped
) -> None:
    _, package = shaped(name)
    models = [model.train(training) for model in pair(name, package)]
    for part in (part for model in models for part in model.modules()):
        if isinstance(part, nn.Dropout):
            part.p = 0.0  # what it draws is not torch's
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in SHAPED[name][2]]
    found = []
    for model in models:
        given = [t.clone().requires_grad_() for t in inputs]
        out = model(*given)
        cotangent = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)
        found.append([out, *torch.autograd.grad(out, [*given, *model.parameters()], cotangent)])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    for (key, a), b in zip(models[1].named_buffers(), models[0].buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=key)


def call(package: ModuleType, case: verify.Case, x: Tensor) -> Tensor:
    operands = {n: t.to(x.dtype) for n, t in case.operands.items()}
    result: Tensor = package.apply(x, *operands.values(), **case.options)
    return result


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SHAPED)
def test_memory_formats_do_not_matter(name: str, device: str, shaped: Shaped) -> None:
    """Channels-last, permuted and strided activations give what a contiguous one does."""
    chain, package = shaped(name)
    shape = shapes(chain)[2]
    case = verify.make_case(chain, shape, training=False, device=device)
    x = case.x
    wanted = call(package, case, x)
    others = [x.transpose(0, 1).contiguous().transpose(0, 1), torch.stack([x, x], -1)[..., 0]]
    if len(shape) in (4, 5):
        last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        others.append(x.contiguous(memory_format=last))
    for other in others:
        got = call(package, case, other)
        assert got.shape == wanted.shape
        # Where x is taken as it lies, sums have another order; a logarithm near 0 shows that.
        torch.testing.assert_close(got, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "name",
    [
        "conv_transpose2d_batch_norm_tanh",
        "conv3d_leaky_relu_sum_gelu",
        "conv2d_channel_softmax_sigmoid",
        "conv_transpose1d_instance_norm_residual",
    ],
)
def test_channels_last_takes_no_copy(name: str, training: bool, shaped: Shaped) -> None:
    """Neither x nor a cotangent is copied, and results lie as they do, values and gradients as ever."""
    chain, package = shaped(name)
    if training and len(chain.modes) == 1:
        return
    shape = shapes(chain)[1]
    case = verify.make_case(chain, shape, training=training)
    cotangent = torch.linspace(-1, 1, case.x.numel(), dtype=torch.float64).reshape(shape)

    def lying(tensor: Tensor, last: bool) -> Tensor:
        if tensor.shape != case.x.shape:
            return tensor.clone()
        return channels_last(tensor) if last else tensor.clone()

    found = []
    for last in (False, True):
        x, along = lying(case.x, last).requires_grad_(), lying(cotangent, last)
        operands = [lying(t, last) for t in case.operands.values()]
        with torch.profiler.profile() as profile:
            out = package.apply(x, *operands, **case.options)
            (gradient,) = torch.autograd.grad(out, x, along)
        running = {"aten::copy_"} if training else set()  # averages
        assert copied(profile) <= running
        assert out.stride() == gradient.stride() == x.stride()
        found.append((out, gradient))
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SHAPED)
def test_empty_activations(name: str, device: str, shaped: Shaped) -> None:
    chain, package = shaped(name)
    for empty in range(chain.layout.rank or 2):
        shape = tuple(0 if d == empty else s for d, s in enumerate(shapes(chain)[1]))
        if not usable(name, chain.layout.half(shape), training=False):
            continue
        case = verify.make_case(chain, shape, training=False, device=device)
        x = case.x.clone().requires_grad_()
        operands = [
            case.operands[o.name].clone().requires_grad_(o.differentiable) for o in chain.operands
        ]
        out = package.apply(x, *operands, **case.options)
        assert out.shape == chain.layout.half(shape)
        out.sum().backward()
        for leaf in (x, *(o for o in operands if o.requires_grad)):
            assert leaf.grad is not None
            assert leaf.grad.shape == leaf.shape
            assert not leaf.grad.any()  # a sum over nothing


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SHAPED)
def test_results_are_the_same_from_run_to_run(name: str, device: str, shaped: Shaped) -> None:
    """Sums have a fixed order: bits repeat, on the CPU for any number of threads too."""
    chain, package = shaped(name)
    shape = doubled(chain, (*(7, 19, 33, 5, 3)[: (chain.layout.rank or 2) - 1], 7))
    case = verify.make_case(chain, shape, training=False, device=device)
    moving = [True, *(o.differentiable for o in chain.operands)]
    leaves = [t.requires_grad_(m) for t, m in zip(
        [case.x, *case.operands.values()], moving, strict=True)]  # fmt: skip

    def run() -> list[Tensor]:
        out = package.apply(*leaves, **case.options)
        return list(torch.autograd.grad(out.square().sum(), [t for t in leaves if t.requires_grad]))

    first = run()
    with threads(1):
        second = run()
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5,), None),
        ((5, 1, 1), None),
        ((1, 5, 1, 1), None),
        ((7,), r"bn_weight: expected shape \(5, 1, 1\) for x of shape \(2, 5, 3, 7\), got \(7,\)"),
        ((5, 1), r"bn_weight: expected shape \(5, 1, 1\)"),
        ((5, 7), r"bn_weight: expected shape \(5, 1, 1\)"),
    ],
    ids=str,
)
def test_an_operand_with_one_number_a_channel(
    shape: tuple[int, ...], message: str | None, shaped: Shaped
) -> None:
    chain, package = shaped("conv_transpose2d_batch_norm_tanh")
    case = verify.make_case(chain, (2, 5, 3, 7), training=False)
    given = {**case.operands, "bn_weight": torch.ones(shape, dtype=torch.float64)}
    if message is None:
        package.apply(case.x, *given.values(), training=False)
        return
    with pytest.raises(ValueError, match=message):
        package.apply(case.x, *given.values(), training=False)


@pytest.mark.parametrize("groups", [0, 5, -1])
def test_groups_that_do_not_divide_the_channels_are_refused(groups: int, shaped: Shaped) -> None:
    chain, package = shaped("linear_group_norm_swish_mul")
    case = verify.make_case(chain, (2, 12), training=False)
    with pytest.raises(ValueError, match=f"expected channels that {groups} groups divide, got 12"):
        package.apply(case.x, *case.operands.values(), num_groups=groups)


def test_another_number_of_dims_is_refused(shaped: Shaped) -> None:
    chain, package = shaped("conv3d_leaky_relu_sum_gelu")
    case = verify.make_case(chain, (2, 3, 4, 5, 6), training=False)
    with pytest.raises(ValueError, match=r"x: expected 5 dims, got shape \(2, 3, 4, 5\)"):
        package.apply(case.x[..., 0], *case.operands.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "chain:\n  - instance_norm: {features: 3}\n",
            "example.yaml:2: instance_norm needs dims after the channel",
        ),
        (
            'chain:\n  - group_norm: {features: 8, num_groups: 2}\n  - expr: "x - mean(x)"\n',
            "example.yaml:3: expr reduces over rows, which are 2 groups of channels here",
        ),
        (
            "operands: {gate: row}\nchain:\n  - group_norm: {features: 8, num_groups: 2}\n  - mul: gate\n",
            "example.yaml:1: 'gate' is of kind row, but rows are groups of channels here",
        ),
        (
            "dims: 4\nchain:\n  - sum: {dim: [1, 3, -1]}\n",
            r"example.yaml:3: the dims \[1, 3, -1\] have one twice",
        ),
        (
            "chain:\n  - sum: {dim: [0, 1]}\n",
            r"example.yaml:2: dim \[0, 1\] needs an activation of several dims",
        ),
        (
            "dims: 4\nchain:\n  - glu: {dim: [2, 3]}\n",
            r"example.yaml:3: 'dim' of glu must be a whole number, not \[2, 3\]",
        ),
        (
            "chain:\n  - group_norm: {features: 8, num_groups: 0}\n",
            "example.yaml:2: 'num_groups' of group_norm must be 1 or more, or an int argument, not 0",
        ),
    ],
)
def test_a_chain_that_no_layout_fits_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(text)
    with pytest.raises(SpecError, match=message):
        pipeline.derive(tmp_path / "example.yaml")
