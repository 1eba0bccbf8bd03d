"""Built packages against float64 truth: dtypes, shapes, layouts and extremes, forward and backward.

`make test` runs what is marked as numerics once more for each lesser instruction set (FUSEGEN_CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, DTYPES, NAMES, dtype_name
from shared.threads import threads

from fusegen.chain import Chain
from fusegen.tools.check import verify
from fusegen.tools.check.reference import run_chain

SHAPES = [(1, 1), (3, 31), (5, 33), (2, 1023), (3, 5, 129), (7, 2048), (33,), (1000, 3), (2, 65537)]
SMALL = [shape for shape in SHAPES if torch.Size(shape).numel() < 5000]
#: Long rows of a softmax, of random numbers and of a norm. The longest, which take seconds, are one of
#: each, and are left out of the everyday loop.
LONG = ("matmul_gelu_softmax", "matmul_dropout_softmax", "gated_rms_norm")
LONGEST = (
    ("matmul_gelu_softmax", (1, 2**20)),
    ("matmul_dropout_softmax", (1, 2**20)),
    ("gated_rms_norm", (2, 2**20 + 1)),
)
LONG_ROWS = [
    *(pytest.param(*longest, marks=pytest.mark.slow) for longest in LONGEST),
    *((name, shape) for name in LONG for shape in ((2, 9000), (3, 40000))),
]
#: So are two dtypes of four: what kernels compute differs for 16 bits and for more.
EVERY_DTYPE = [
    pytest.param(dtype, marks=pytest.mark.slow if dtype in (torch.float64, torch.float16) else ())
    for dtype in DTYPES
]
Package = Callable[[str], ModuleType]
Derived = Callable[[str], Chain]


def modes(chain: Chain) -> tuple[bool, ...]:
    return (False, True) if len(chain.modes) == 2 else (False,)


def usable(chain: Chain, shape: tuple[int, ...], training: bool) -> bool:
    """Whether torch itself takes the shape: `dim: 1` wants two dims, batch norm more than one row."""
    if chain.layout.rank and len(shape) != chain.layout.rank:
        return False
    return not (training and chain.modes[0].saved and shape[0] == 1)


@pytest.mark.numerics
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=dtype_name)
@pytest.mark.parametrize("name", NAMES)
def test_every_shape(
    name: str, dtype: torch.dtype, device: str, package: Package, derived: Derived
) -> None:
    hold(package(name), derived(name), SHAPES, 0, dtype, device)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("name", NAMES)
def test_small_shapes_of_other_numbers(
    name: str, dtype: torch.dtype, device: str, seed: int, package: Package, derived: Derived
) -> None:
    """Not for each instruction set: these have the same code and other vectors."""
    hold(package(name), derived(name), SMALL, seed, dtype, device)


def hold(
    built: ModuleType,
    chain: Chain,
    shapes: Sequence[tuple[int, ...]],
    seed: int,
    dtype: torch.dtype,
    device: str,
) -> None:
    """Compare a package with float64, in training and evaluation, at those shapes that torch takes."""
    for shape in shapes:
        for training in modes(chain):
            if usable(chain, shape, training):
                case = verify.make_case(chain, shape, training=training, seed=seed, device=device)
                for error in verify.compare(built, chain, case, dtype):
                    assert error.within, f"{shape}, training={training}, seed {seed}: {error}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "shape"), LONG_ROWS, ids=str)
def test_long_rows(
    name: str, shape: tuple[int, ...], device: str, package: Package, derived: Derived
) -> None:
    chain = derived(name)
    for dtype in (torch.float32, torch.bfloat16):
        case = verify.make_case(chain, shape, training=len(chain.modes) == 2, device=device)
        for error in verify.compare(package(name), chain, case, dtype):
            assert error.within, f"{dtype}: {error}"


@pytest.mark.numerics
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str, device: str, package: Package, derived: Derived) -> None:
    chain = derived(name)
    for training in modes(chain):
        verify.gradcheck(package(name), chain, training=training, device=device)


def call(built: ModuleType, case: verify.Case, x: torch.Tensor) -> torch.Tensor:
    operands = {n: t.to(x.dtype) for n, t in case.operands.items()}
    result: torch.Tensor = built.apply(x, *operands.values(), **case.options)
    return result


@pytest.mark.numerics
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_layouts_do_not_matter(name: str, device: str, package: Package, derived: Derived) -> None:
    """Transposed, strided and unaligned inputs give the bits of a contiguous one."""
    chain, built = derived(name), package(name)
    case = verify.make_case(chain, (6, 40), training=False, device=device)
    x = case.x.float()
    wanted = call(built, case, x)
    transposed = x.t().contiguous().t()
    strided = torch.stack([x, x], dim=-1).reshape(6, 80)[:, ::2]
    padded = torch.cat([x.new_zeros(1), x.reshape(-1)])
    unaligned = padded[1:].view(6, 40)
    assert unaligned.data_ptr() % 16 != 0
    for other in (transposed, strided, unaligned):
        got = call(built, case, other)
        assert got.is_contiguous() or got.stride() == other.stride()  # as torch's own, as x lies
        torch.testing.assert_close(got, wanted, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 8), (4, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_empty_tensors(
    name: str, shape: tuple[int, int], device: str, package: Package, derived: Derived
) -> None:
    chain = derived(name)
    case = verify.make_case(chain, shape, training=False, device=device)
    x = case.x.clone().requires_grad_()
    operands = [
        case.operands[o.name].clone().requires_grad_(o.differentiable) for o in chain.operands
    ]
    out = package(name).apply(x, *operands, **case.options)
    assert out.shape == shape
    out.sum().backward()
    for leaf in (x, *(o for o in operands if o.requires_grad)):
        assert leaf.grad is not None
        assert leaf.grad.shape == leaf.shape
        assert not leaf.grad.any()  # a sum over nothing


EXTREMES = [0.0, -0.0, 1e4, -1e4, 88.7, -103.0, 1e-45, 1e-38, -1e-40, 3e38]


@pytest.mark.numerics
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("special", [float("nan"), None], ids=str)
@pytest.mark.parametrize("name", ["gated_rms_norm"])
def test_extremes_of_a_formula_are_exact(
    name: str, special: float | None, device: str, package: Package, derived: Derived
) -> None:
    """As below, without infinity and 3e38: in which order a formula's factors meet is not defined."""
    check_extremes(name, [*EXTREMES[:-1], 1e18], special, device, package, derived)


@pytest.mark.numerics
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("special", [float("nan"), float("inf"), float("-inf"), None], ids=str)
@pytest.mark.parametrize("name", [n for n in NAMES if n != "gated_rms_norm"])
def test_extremes_are_exact(
    name: str, special: float | None, device: str, package: Package, derived: Derived
) -> None:
    """±inf, NaN, ±1e4, overflow and subnormals, against float64: eager's own gelu(3e38) is NaN where
    its vector code takes it (torch 2.11 with AVX-512)."""
    # A scale above 1 takes 3e38 to infinity in float32, in eager too, and not in float64.
    values = EXTREMES[:-1] if name == "scale_softmax" else EXTREMES
    check_extremes(name, values, special, device, package, derived)


def check_extremes(
    name: str,
    values: list[float],
    special: float | None,
    device: str,
    package: Package,
    derived: Derived,
) -> None:
    chain = derived(name)
    case = verify.make_case(chain, (2, 24), training=False, device=device)
    x = case.x.float()
    x[0, : len(values)] = torch.tensor(values)
    if special is not None:
        x[0, 11] = special
    numbers = {k: v for k, v in case.options.items() if k in chain.attributes}
    wanted = run_chain(chain.spec, x.double(), case.operands, numbers).float()
    got = call(package(name), case, x)
    assert torch.equal(torch.isnan(got), torch.isnan(wanted))
    torch.testing.assert_close(got, wanted, rtol=2e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_results_are_the_same_from_run_to_run(
    name: str, device: str, package: Package, derived: Derived
) -> None:
    """Sums have a fixed order: bits repeat, on the CPU for any number of threads too."""
    chain, built = derived(name), package(name)
    case = verify.make_case(chain, (513, 777), training=False, device=device)
    leaves = [case.x.float(), *(t.float() for t in case.operands.values())]
    moving = [True, *(o.differentiable for o in chain.operands)]

    def run() -> list[torch.Tensor]:
        given = [t.clone().requires_grad_(m) for t, m in zip(leaves, moving, strict=True)]
        out = built.apply(*given, **case.options)
        return list(
            torch.autograd.grad(
                out.square().sum(), [t for t, m in zip(given, moving, strict=True) if m]
            )
        )

    first = run()
    with threads(1):
        second = run()
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ["matmul_swish_scale", "matmul_gelu_softmax"])
def test_more_than_two_to_the_31_elements(name: str, package: Package, derived: Derived) -> None:
    """The last rows of a tensor of 2^31 + 2^24 elements are those of a small one."""
    chain = derived(name)
    cols = 2**14
    rows = 2**17 + 2**10
    x = torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16)
    operands = [torch.rand(cols, device="cuda", dtype=torch.bfloat16) for _ in chain.operands]
    got = package(name).apply(x, *operands)[-3:]
    wanted = package(name).apply(x[-3:].clone(), *operands)
    assert torch.equal(got, wanted)
