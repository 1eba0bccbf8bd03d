"""Operands that torch would broadcast or widen: values and gradients as torch's, and what is refused."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from conftest import DEVICES
from random_programs.build import build_specs
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap

from fusegen import load

SPECS = {
    "any_dims": """
        operands: {bias: full, weight: col, factor: row, scale: scalar}
        chain:
          - add: bias
          - mul: weight
          - softmax
          - mul: factor
          - expr: "tanh(x * scale)"
        """,
    "an_image": """
        dims: 4
        operands: {bias: full, weight: channel, factor: row}
        chain:
          - mul: weight
          - add: bias
          - softmax: {dim: 1}
          - mul: factor
        """,
    "a_dropped_row": """
        operands: {bias: full, factor: row}
        chain:
          - dropout: {name: drop}
          - add: bias
          - logsumexp: {dim: -1}
          - mul: factor
        """,
    "made_larger": """
        operands: {residual: full}
        chain:
          - mean: {dim: -1, keepdim: true}
          - mul: residual
          - gelu
        """,
}
DTYPES = dict.fromkeys(SPECS, ("float64",)) | {"any_dims": ("float64", "float32", "bfloat16")}

Function = Callable[..., Tensor]


def any_dims(x: Tensor, bias: Tensor, weight: Tensor, factor: Tensor, scale: Tensor) -> Tensor:
    return torch.tanh(((x + bias) * weight).softmax(-1) * factor * scale)


def an_image(x: Tensor, bias: Tensor, weight: Tensor, factor: Tensor) -> Tensor:
    return (x * weight + bias).softmax(1) * factor


def made_larger(x: Tensor, residual: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x.mean(-1, keepdim=True) * residual)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    folder = tmp_path_factory.mktemp("operand_shapes")
    for name, text in SPECS.items():
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
    paths = [folder / f"{name}.yaml" for name in SPECS]
    build_specs(paths, folder / "out", dtypes=DTYPES)
    return {name: load(name, folder / "out") for name in SPECS}


#: The full operand, the column's, the row's and the scalar, beside [2, 3, 4, 5].
ANY_DIMS = [
    ((2, 1, 1, 5), (5,), (2, 3, 4, 1), ()),
    ((1, 3, 1, 1), (1, 5), (4, 1), (1,)),
    ((4, 5), (1, 1, 5), (3, 1, 1), (1, 1, 1)),
    ((5,), (1,), (2, 1, 1, 1), ()),
    ((), (), (), ()),
    ((2, 3, 4, 1), (1, 1, 1, 5), (1,), (1, 1, 1, 1)),
]
#: The full operand, the channel's and the row's, beside [2, 3, 4, 5].
AN_IMAGE = [
    ((4, 5), (3, 1, 1), (5,)),
    ((2, 1, 1, 1), (1, 3, 1, 1), (4, 1)),
    ((2, 3, 1, 1), (), (2, 1, 4, 5)),
    ((1,), (1, 1), (1, 1, 4, 5)),
]
#: The full operand beside the mean of [3, 6].
MADE_LARGER = [((1, 4),), ((4,),), ((3, 1),), ((1,),), ((),)]
CASES = [
    *((any_dims, (2, 3, 4, 5), shapes) for shapes in ANY_DIMS),
    *((an_image, (2, 3, 4, 5), shapes) for shapes in AN_IMAGE),
    *((made_larger, (3, 6), shapes) for shapes in MADE_LARGER),
]


def leaves(*shapes: tuple[int, ...], **options: object) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for shape in shapes:
        made = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.25
        yield made.to(**options).requires_grad_()  # type: ignore[call-overload]


def close(got: object, wanted: object) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("eager", "x", "shapes"), CASES)
def test_values_and_gradients(
    eager: Function,
    x: tuple[int, ...],
    shapes: tuple[tuple[int, ...], ...],
    device: str,
    packages: dict[str, ModuleType],
) -> None:
    """Each gradient comes back in the operand's own shape."""
    apply = packages[eager.__name__].apply
    given = list(leaves(x, *shapes, device=device))
    wanted = eager(*given)
    got = apply(*given)
    close(got, wanted)
    along = torch.rand_like(wanted)
    close(torch.autograd.grad(got, given, along), torch.autograd.grad(wanted, given, along))


@pytest.mark.parametrize(("eager", "x", "shapes"), [CASES[0], CASES[1], CASES[7], CASES[10]])
def test_gradcheck(
    eager: Function,
    x: tuple[int, ...],
    shapes: tuple[tuple[int, ...], ...],
    packages: dict[str, ModuleType],
) -> None:
    given = tuple(leaves(x, *shapes))
    assert gradcheck(packages[eager.__name__].apply, given)
    assert gradgradcheck(packages[eager.__name__].apply, given)


@pytest.mark.parametrize(("eager", "x", "shapes"), CASES)
def test_transforms(
    eager: Function,
    x: tuple[int, ...],
    shapes: tuple[tuple[int, ...], ...],
    packages: dict[str, ModuleType],
) -> None:
    """A batch of activations, one of everything, tangents, and gradients per sample."""
    apply = packages[eager.__name__].apply
    given = [t.detach() for t in leaves(x, *shapes)]
    batches = [t.detach() for t in leaves((2, *x), *((2, *s) for s in shapes))]
    alone = (0, *(None for _ in shapes))
    close(vmap(apply, alone)(batches[0], *given[1:]), vmap(eager, alone)(batches[0], *given[1:]))
    close(vmap(apply)(*batches), vmap(eager)(*batches))
    tangents = tuple(torch.rand_like(t) for t in given)
    close(jvp(apply, tuple(given), tangents), jvp(eager, tuple(given), tangents))
    every = tuple(range(len(given)))
    slopes = [grad(lambda *a, f=f: f(*a).square().sum(), every) for f in (apply, eager)]
    close(vmap(slopes[0])(*batches), vmap(slopes[1])(*batches))


@pytest.mark.parametrize(("eager", "x", "shapes"), [CASES[0], CASES[2], CASES[6]])
def test_torch_compile(
    eager: Function,
    x: tuple[int, ...],
    shapes: tuple[tuple[int, ...], ...],
    packages: dict[str, ModuleType],
) -> None:
    torch.compiler.reset()
    apply = packages[eager.__name__].apply
    compiled = torch.compile(apply, fullgraph=True, backend="aot_eager")
    given = list(leaves(x, *shapes))
    got, wanted = compiled(*given), apply(*given)
    close(got, wanted)
    along = torch.rand_like(wanted)
    close(torch.autograd.grad(got, given, along), torch.autograd.grad(wanted, given, along))


@pytest.mark.parametrize("bias", [(2, 1, 1, 5), (4, 5)], ids=str)
def test_torch_export(bias: tuple[int, ...], packages: dict[str, ModuleType]) -> None:
    """For any batch size, with operands that have a batch of their own, or none."""
    shapes = (bias, (5,), (4, 1), ())
    given = [t.detach() for t in leaves((2, 3, 4, 5), *shapes)]
    batch = torch.export.Dim("batch", min=2, max=64)
    dims = ({0: batch}, {0: batch} if bias[0] == 2 else None, None, None, None)
    program = torch.export.export(packages["any_dims"].Module(), tuple(given), dynamic_shapes=dims)
    bias = (7, *bias[1:]) if bias[0] == 2 else bias
    given = [t.detach() for t in leaves((7, 3, 4, 5), bias, *shapes[1:])]
    close(program.module()(*given), any_dims(*given))


@pytest.mark.parametrize("factor", [(2, 3, 1), (2, 3), (3, 1), (2, 1, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("hooked", [False, True], ids=["fused", "stepwise"])
def test_a_row_that_was_dropped(
    factor: tuple[int, ...], hooked: bool, packages: dict[str, ModuleType]
) -> None:
    """A row's operand broadcasts with x, or with the result, also where the chain runs step by step."""
    module = packages["a_dropped_row"].Module().eval()
    if hooked:
        module.drop.register_forward_hook(lambda *_: None)
    given = list(leaves((2, 3, 5), (3, 1), factor))
    x, bias, rows = given
    summed = (x + bias).logsumexp(-1, keepdim=True)
    wanted = (summed * rows.view(2, 3, 1) if factor == (2, 3) else summed * rows).squeeze(-1)
    got = module(*given)
    close(got, wanted)
    along = torch.rand_like(wanted)
    close(torch.autograd.grad(got, given, along), torch.autograd.grad(wanted, given, along))


@pytest.mark.parametrize(
    ("name", "place", "shape", "expected"),
    [
        (
            "any_dims",
            1,
            (2, 1, 5),
            "bias: expected shape (2, 3, 4, 5)",
        ),  # torch aligns the last dims
        ("an_image", 1, (1, 2, 3, 4, 5), "bias: expected shape (2, 3, 4, 5)"),  # its rank is known
        ("any_dims", 2, (4,), "weight: expected shape (5,)"),
        ("any_dims", 2, (4, 5), "weight: expected shape (5,)"),
        ("any_dims", 3, (2, 3, 3), "factor: expected shape (2, 3, 4, 1)"),
        ("any_dims", 3, (4,), "factor: expected shape (2, 3, 4, 1)"),
        ("any_dims", 3, (5,), "factor: expected shape (2, 3, 4, 1)"),
        ("any_dims", 4, (5,), "scale: expected one element"),
        ("an_image", 2, (5,), "weight: expected shape (3, 1, 1)"),
        ("an_image", 2, (1, 3), "weight: expected shape (3, 1, 1)"),
        ("an_image", 3, (3, 1, 1), "factor: expected shape (2, 1, 4, 5)"),
        ("made_larger", 1, (2, 4), "residual: expected shape (3, 4)"),
    ],
)
def test_refused_shapes(
    name: str,
    place: int,
    shape: tuple[int, ...],
    expected: str,
    packages: dict[str, ModuleType],
) -> None:
    _, x, shapes = next(case for case in CASES if case[0].__name__ == name)
    given = list(leaves(x, *shapes))
    given[place] = next(leaves(shape))
    with pytest.raises(ValueError, match=re.escape(expected)) as raised:
        packages[name].apply(*given)
    assert f"got {shape}" in str(raised.value)
    assert ("a chain adds none" in str(raised.value)) == (len(shape) > len(x))


def test_another_device_is_refused(packages: dict[str, ModuleType]) -> None:
    given = list(leaves((3, 6), (4,)))
    with pytest.raises(ValueError, match="residual: expected a tensor on cpu"):
        packages["made_larger"].apply(given[0], given[1].to("meta"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_lower_dtype_is_widened(dtype: torch.dtype, packages: dict[str, ModuleType]) -> None:
    """As torch's own promotion does; the gradient comes back in the operand's dtype."""
    x, *operands = leaves((2, 3, 4, 5), (5,), (5,), (2, 3, 4, 1), ())
    given = [
        x.detach().requires_grad_(),
        *(t.detach().to(dtype).requires_grad_() for t in operands),
    ]
    got, wanted = packages["any_dims"].apply(*given), any_dims(*given)
    assert got.dtype is torch.float64
    close(got, wanted)
    along = torch.rand_like(wanted)
    slopes = [torch.autograd.grad(value, given, along) for value in (got, wanted)]
    assert [t.dtype for t in slopes[0]] == [torch.float64, *[dtype] * 4]
    torch.testing.assert_close(slopes[0], slopes[1])


def beside_16_bits(place: int, device: str = "cpu") -> list[Tensor]:
    """Return x in bfloat16, and the operands, of which one is of float32."""
    given = list(leaves((2, 3, 4, 5), (4, 5), (5,), (2, 3, 4, 1), (1,)))
    dtypes = [torch.float32 if n == place else torch.bfloat16 for n in range(len(given))]
    return [t.detach().to(device, d).requires_grad_() for t, d in zip(given, dtypes, strict=True)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("place", range(1, 5))
def test_an_operand_of_float32_is_not_rounded(
    place: int, device: str, packages: dict[str, ModuleType]
) -> None:
    """x is widened, and the result rounded to x's dtype; gradients are those of the call in float32."""
    apply, given = packages["any_dims"].apply, beside_16_bits(place, device)
    got, wide = apply(*given), apply(*(t.float() for t in given))
    assert got.dtype is torch.bfloat16
    assert torch.equal(got, wide.bfloat16())
    along = torch.randn(got.shape, device=device).bfloat16()
    slopes = torch.autograd.grad(got, given, along)
    for ours, theirs, own in zip(
        slopes, torch.autograd.grad(wide, given, along.float()), given, strict=True
    ):
        assert ours.dtype is own.dtype
        assert torch.equal(ours, theirs)
    truths = [t.detach().double().requires_grad_() for t in given]
    wanted = torch.autograd.grad(any_dims(*truths), truths, along.double())[place]
    torch.testing.assert_close(slopes[place].double(), wanted, rtol=1e-4, atol=1e-6)


def test_transforms_of_an_operand_of_float32(packages: dict[str, ModuleType]) -> None:
    torch.compiler.reset()
    apply, given = packages["any_dims"].apply, [t.detach() for t in beside_16_bits(2)]
    tangents = [torch.randn_like(t) for t in given]
    value, tangent = jvp(apply, tuple(given), tuple(tangents))
    wide = jvp(apply, tuple(t.float() for t in given), tuple(t.float() for t in tangents))
    assert torch.equal(tangent, wide[1].bfloat16())
    batches = [torch.stack([t, t]) for t in given]
    assert torch.equal(vmap(apply)(*batches)[1], value)
    compiled = torch.compile(apply, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*given), value)


def test_a_number_without_dims_has_no_say(packages: dict[str, ModuleType]) -> None:
    """A float32 scalar beside a bfloat16 x: torch's result is bfloat16 too."""
    x, *operands = leaves((2, 3), (3,), (3,), (2, 1))
    low = [t.detach().bfloat16() for t in (x, *operands)]
    scale = torch.tensor(0.7, requires_grad=True)
    got, wanted = packages["any_dims"].apply(*low, scale), any_dims(*low, scale)
    assert got.dtype is wanted.dtype is torch.bfloat16
    torch.testing.assert_close(got, wanted, rtol=2e-2, atol=1e-3)
    (slope,) = torch.autograd.grad(got.sum(), scale)
    assert slope.dtype is torch.float32


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (torch.float32, torch.float64),
        (torch.bfloat16, torch.float64),
        (torch.bfloat16, torch.float16),
        (torch.float32, torch.int64),
        (torch.float32, torch.bool),
        (torch.float32, torch.complex64),
    ],
    ids=str,
)
def test_other_dtypes_are_refused(
    own: torch.dtype, other: torch.dtype, packages: dict[str, ModuleType]
) -> None:
    """What would be rounded, or is no number of torch's result."""
    x, bias, *operands = (t.detach().to(own) for t in leaves((2, 3), (3,), (3,), (2, 1), (1,)))
    names = [str(dtype).removeprefix("torch.") for dtype in (own, other)]
    with pytest.raises(
        TypeError, match=f"bias: expected {names[0]} as x has, got {names[1]}"
    ) as raised:
        packages["any_dims"].apply(x, bias.to(other), *operands)
    remedy = "call .to(x.dtype), or use torch.autocast"
    assert (remedy in str(raised.value)) is other.is_floating_point
