"""Gates of the two halves of one tensor: torch's own results, no copies, and errors that say what to do."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from conftest import DEVICES, dtypes_on_devices
from random_programs.build import in_turn
from shared.chains_of_texts import built_texts, hold_each_shape
from torch import Tensor, nn
from torch.nn import functional as F

from fusegen.atoms import HALVES
from fusegen.base.errors import SpecError
from fusegen.chain import Chain, derive
from fusegen.program import Kind, Output, Program
from fusegen.program.builder import Builder
from fusegen.program.calculus import vjp
from fusegen.spec import parse
from fusegen.tools.check import verify
from fusegen.tools.check.reference_program import run_program

ALONE = "operands: {residual: full}\norder: 3\nchain:\n  - glu: {dim: -1}\n  - add: residual\n"
#: Halves along the last dim of four, where rows are elements of the other dims.
LAST = "dims: 4\nchain: [reglu]\norder: 2\n"
#: One element of each row of a half, by its index.
LOSS = (
    "operands: {target: {kind: row, dtype: int64}}\nchain:\n  - geglu\n  - cross_entropy: target\n"
)
#: Halves of the batch.
FIRST = "dims: 3\norder: 2\nchain:\n  - glu: {dim: 0}\n"
BATCH = f"{FIRST}  - batch_norm: {{features: 3}}\n"
TEXTS = {
    "halves_alone": ALONE,
    "halves_last": LAST,
    "halves_loss": LOSS,
    "halves_first": FIRST,
    "halves_batch": BATCH,
}
SHAPES = {
    "halves_alone": [(2,), (1, 2), (3, 66), (31, 64), (2, 3, 96), (5, 8198), (2, 14000)],
    "halves_last": [(1, 1, 1, 2), (2, 3, 5, 14), (3, 2, 4, 64)],
    "halves_loss": [(3, 66), (31, 64), (5, 8198)],
    "halves_first": [(2, 1, 1), (6, 5, 7), (4, 3, 64)],
    "halves_batch": [(2, 1, 1), (6, 5, 7), (4, 3, 64)],
}


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Chain, ModuleType]]:
    """Gives the chain and the built package of each spec."""
    return built_texts(tmp_path_factory, "halves", TEXTS, in_turn(TEXTS))


Halved = dict[str, tuple[Chain, ModuleType]]


@pytest.mark.parametrize(("name", "dtype", "device"), dtypes_on_devices(TEXTS, in_turn(TEXTS)))
def test_every_shape(name: str, dtype: torch.dtype, device: str, halved: Halved) -> None:
    hold_each_shape(halved[name], SHAPES[name], dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TEXTS)
def test_gradcheck(name: str, device: str, halved: Halved) -> None:
    chain, package = halved[name]
    verify.gradcheck(package, chain, training=False, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_it_is_torchs_glu_to_the_third_derivative(device: str, halved: Halved) -> None:
    _, package = halved["halves_alone"]
    x = torch.randn(4, 10, dtype=torch.float64, device=device)
    residual = torch.randn(4, 5, dtype=torch.float64, device=device)
    found = []
    for function in (package.apply, lambda x, r: F.glu(x, -1) + r):
        leaf = x.clone().requires_grad_()
        values = [function(leaf, residual)]
        for order in range(3):
            weight = torch.linspace(-1, 1, values[-1].numel(), dtype=x.dtype, device=device)
            total = (values[-1].reshape(-1) * weight.add(order)).square().sum()
            values += torch.autograd.grad(total, leaf, create_graph=True)
        found.append(values)
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_transforms_see_torchs_function(halved: Halved) -> None:
    """vmap over x, forward mode, and a Hessian."""
    _, package = halved["halves_alone"]
    x = torch.randn(3, 4, 10, dtype=torch.float64)
    residual = torch.randn(4, 5, dtype=torch.float64)

    def ours(x: Tensor) -> Tensor:
        result: Tensor = package.apply(x, residual)
        return result

    def torchs(x: Tensor) -> Tensor:
        return F.glu(x, -1) + residual

    for transformed in (
        lambda f: torch.func.vmap(f)(x),
        lambda f: torch.func.jvp(f, (x[0],), (x[1],)),
        lambda f: torch.func.hessian(lambda t: f(t).square().sum())(x[0]),
        lambda f: torch.func.vmap(torch.func.grad(lambda t: f(t).square().sum()))(x),
    ):
        torch.testing.assert_close(transformed(ours), transformed(torchs))


def test_forward_mode_reaches_a_loss(halved: Halved) -> None:
    """The value is one number, so neither x nor one half of it has its shape."""
    _, package = halved["halves_loss"]
    x, along = torch.randn(2, 5, 8, dtype=torch.float64).unbind()
    target = torch.randint(4, (5,))

    def torchs(x: Tensor) -> Tensor:
        first, gate = x.chunk(2, -1)
        return F.cross_entropy(first * F.gelu(gate), target)

    got = torch.func.jvp(lambda x: package.apply(x, target), (x,), (along,))
    torch.testing.assert_close(got, torch.func.jvp(torchs, (x,), (along,)))


def test_a_compiled_loss_is_one_number(halved: Halved) -> None:
    _, package = halved["halves_loss"]
    x, target = torch.randn(5, 8, requires_grad=True), torch.randint(4, (5,))
    compiled = torch.compile(
        lambda x, t: package.apply(x, t).expand(3) * 2, backend="aot_eager", fullgraph=True
    )
    assert compiled(x, target).shape == (3,)


def test_compiled_it_is_the_same(halved: Halved) -> None:
    _, package = halved["halves_alone"]
    x = torch.randn(4, 10, requires_grad=True)
    residual = torch.randn(4, 5)
    compiled = torch.compile(
        lambda x, r: package.apply(x, r) * 2, backend="aot_eager", fullgraph=True
    )
    got = compiled(x, residual)
    torch.testing.assert_close(got, 2 * (F.glu(x, -1) + residual))
    (gradient,) = torch.autograd.grad(got.sum(), x)
    assert gradient.shape == x.shape


def test_neither_half_is_copied(halved: Halved) -> None:
    """Nor are the halves of the gradient put together from two tensors."""
    _, package = halved["halves_alone"]
    x = torch.randn(64, 128, requires_grad=True)
    residual, cotangent = torch.randn(2, 64, 64).unbind()
    with torch.profiler.profile() as profile:
        torch.autograd.grad(package.apply(x, residual), x, cotangent)
    names = {event.key for event in profile.key_averages()}
    assert not names & {
        "aten::contiguous",
        "aten::clone",
        "aten::copy_",
        "aten::cat",
        "aten::chunk",
    }


def test_a_half_that_nothing_varies_with_has_the_gradient_zero() -> None:
    """A kernel writes both halves of a gradient, or half of it would be whatever was in memory."""
    b = Builder()
    first, second = b.parts("x", Kind.FULL, HALVES)
    bias, _ = b.parts("bias", Kind.COL, HALVES)
    value = b.map("scaled", 3 * first.symbol + bias.symbol)
    backward = vjp(Program("forward", tuple(b.inputs), {"y": Output(value, first, "half")}), "back")
    assert list(backward.outputs) == ["grad_x", "grad_x_half", "grad_bias", "grad_bias_half"]
    assert backward.tensors == ("x", "bias", "grad_y")
    x = torch.ones(2, 3, dtype=torch.float64)
    given = {"x": x, "x_half": x, "bias": x[0], "bias_half": x[0], "grad_y": x}
    found = run_program(backward, given)
    assert torch.equal(found["grad_x"], 3 * x)
    assert not found["grad_x_half"].any()
    assert torch.equal(found["grad_bias"], 2 * x[0])
    assert not found["grad_bias_half"].any()
    assert second.tensor == "x"


@pytest.mark.parametrize(
    ("x", "residual", "message"),
    [
        ((3, 5), (3, 5), r"x: expected two halves along dim -1, got shape \(3, 5\)"),
        ((), (), r"x: expected two halves along dim -1, got shape \(\)"),
        ((3, 8), (3, 8), r"residual: expected shape \(3, 4\) for x of shape \(3, 8\)"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(
    x: tuple[int, ...], residual: tuple[int, ...], message: str, halved: Halved
) -> None:
    _, package = halved["halves_alone"]
    with pytest.raises(ValueError, match=message):
        package.apply(torch.randn(x), torch.randn(residual))


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (
            "chain:\n  - softmax\n  - glu\n",
            "glu takes the parts of x .* put it first, or make two specs of it, or give it a second input: "
            "{gate: ...}",
            3,
        ),
        (
            "chain:\n  - glu\n  - swiglu\n",
            "and glu, which comes before it, takes parts of its own",
            3,
        ),
        (
            "chain:\n  - glu: {dim: 0}\n",
            "the parts of .* are along the last dim: dim is -1 or 1",
            2,
        ),
        ("dims: 3\nchain:\n  - glu: {dim: 3}\n", "dim 3 does not exist", 3),
        (
            "operands: {gate: full}\nchain:\n  - glu: {gate: gate, dim: -1}\n",
            "takes dim for the halves of one tensor: drop it, or 'gate'",
            3,
        ),
        ("chain:\n  - glu: {gate: null}\n", "'gate' of glu is null: give it a value", 2),
        (
            "arguments: {in_features: int, n: int}\nchain:\n"
            "  - linear: {out_features: 2 * m}\n  - glu\n",
            "must be an int argument, a size, or sums and products of these",
            3,
        ),
        (
            "arguments: {in_features: int, out_features: int}\nchain:\n"
            "  - linear\n  - glu\n  - batch_norm\n",
            "batch_norm needs 'features'",
            5,
        ),
    ],
)
def test_a_spec_that_cannot_be_is_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, "example")
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("chain", "segments"),
    [
        ("glu: {dim: 3}, exp, softmax: {dim: 1}, tanh", ["glu exp", "softmax tanh"]),
        ("glu: {dim: 2}, softmax: {dim: 1}, amax: {dim: 3}", ["glu", "softmax", "amax"]),
        ('glu: {dim: 3}, expr: "x - mean(x)", softmax: 1', ["glu", "expr softmax"]),
        ("glu: {dim: 3}, group_norm: {features: 8, num_groups: 2}", ["glu", "group_norm"]),
        ("glu: {dim: 1}, softmax: {dim: 1}, tanh", ["glu softmax tanh"]),
        ("glu: {dim: 2}, softmax: {dim: 3}, amax: {dim: 1}", ["glu softmax", "amax"]),
    ],
)
def test_halves_across_a_row_are_a_segment_of_their_own(chain: str, segments: list[str]) -> None:
    derived = derive(parse(f"order: 1\ndims: 4\nchain: [{chain}]\n", "example"))
    assert [
        " ".join(step.label for step in segment.steps) for segment in derived.segments
    ] == segments
    halved = [bool(segment.layout.halved) for segment in derived.segments]
    assert halved == [True, *[False] * (len(segments) - 1)]


@pytest.mark.parametrize(
    ("norm", "width"),
    [("glu: {dim: 1}, batch_norm", "hidden"), ("glu: {dim: 2}, instance_norm", "2 * hidden")],
)
def test_a_norm_is_as_wide_as_what_reaches_it(norm: str, width: str) -> None:
    head = "arguments: {in_channels: int, hidden: int, kernel_size: int}\n"
    source = "conv2d: {out_channels: 2 * hidden}"
    spec = parse(
        f"{head}chain: [{source}, {norm}: {{affine: true}}]\n".replace(
            "batch_norm: {affine: true}", "batch_norm"
        ),
        "example",
    )
    assert str(spec.steps[-1].settings["features"]) == width


def test_an_operand_of_half_the_width_serves_every_segment() -> None:
    text = (
        "dims: 4\noperands: {w: full}\nchain:\n  - glu: {dim: 1}\n  - mul: w\n"
        "  - softmax: {dim: 1}\n  - softmax: {dim: 2}\n  - mul: w\n"
    )
    derived = derive(parse(text, "example"))
    reached = derived.reached((3, 8, 5, 6))
    assert reached == ((3, 8, 5, 6), (3, 4, 5, 6))
    for segment, x in zip(derived.segments, reached, strict=True):
        assert segment.operands[0].shape(x, segment.layout) == (3, 4, 5, 6)


def test_a_batch_norm_of_halves_of_the_batch(halved: Halved) -> None:
    """Its rows are half as many as x has: also those that the variance is averaged over."""
    _, package = halved["halves_batch"]
    x = torch.randn(6, 3, 2, dtype=torch.float64)
    ours, torchs = package.Module().double().train(), nn.BatchNorm1d(3).double().train()
    torch.testing.assert_close(ours(x), torchs(F.glu(x, 0)))
    for got, wanted in zip(ours.buffers(), torchs.buffers(), strict=True):
        torch.testing.assert_close(got, wanted)
    with pytest.raises(ValueError, match="more than one value per channel in training"):
        ours(torch.randn(2, 3, 1, dtype=torch.float64))


def test_a_batch_does_not_join_halves_of_the_first_dim(halved: Halved) -> None:
    _, package = halved["halves_first"]
    x = torch.randn(5, 4, 3, 2, dtype=torch.float64)
    wanted = torch.stack([F.glu(member, 0) for member in x])
    torch.testing.assert_close(torch.func.vmap(package.apply)(x), wanted)
