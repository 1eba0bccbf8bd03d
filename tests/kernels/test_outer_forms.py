"""Rows whose columns lie apart: what a block of the GPU has of them, and every form against float64 truth."""

from __future__ import annotations

import ctypes
import random
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import DTYPES, ROOT, built_alone, derive, dtype_name

from fusegen import load
from fusegen.base import paths
from fusegen.toolchain.compilers import find_compilers
from fusegen.tools.check import verify

SOURCE = """
#include "fusegen/outer_plan.h"
extern "C" void choose(const int64_t* given, int64_t* found) {
  fusegen::OuterNeeds needs{};
  needs.rows = given[0], needs.cols = given[1], needs.inner = given[2];
  needs.width = given[3], needs.items = given[4], needs.tensors = given[5], needs.size = given[6];
  needs.threads = given[7];
  const fusegen::OuterPlan plan = fusegen::choose_outer(needs);
  const int64_t all[] = {plan.items, plan.lanes, plan.strands, plan.walk.tiles};
  for (int n = 0; n < 4; ++n) found[n] = all[n];
}
extern "C" int64_t divide(int64_t a, int64_t b) { return fusegen::Divisor(b).quotient(a); }
extern "C" int64_t divide_small(int64_t a, int64_t b) {
  return fusegen::SmallDivisor(b).quotient(uint32_t(a));
}
"""
#: Columns and what is after them, at and around the places where the choice changes: one, odd numbers, what
#: wide accesses need and do not fit, what 32, 64 and 128 bytes hold, an image's 7 x 7, 14 x 14 and 56 x 56.
COLUMNS = sorted({1, 3, 7, 33, 256} | {2**k + d for k in range(5, 13) for d in (0, 1)})
INNER = [2, 3, 4, 7, 8, 9, 16, 32, 33, 49, 64, 196, 56 * 56]


class Plan(NamedTuple):
    """What is chosen: columns a thread holds, threads side by side, strands, tiles of rows."""

    items: int
    lanes: int
    strands: int
    tiles: int


Choose = Callable[..., Plan]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Gives outer_plan.h as a library."""
    folder = tmp_path_factory.mktemp("outer_plan")
    (folder / "choose.cpp").write_text(SOURCE)
    library = folder / "choose.so"
    command = [str(find_compilers().cxx), "-std=c++17", "-O1", "-Wall", "-Werror", "-shared"]
    command += ["-fPIC", f"-I{paths.include()}", str(folder / "choose.cpp"), "-o", str(library)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.divide.restype = loaded.divide_small.restype = ctypes.c_int64
    return loaded


@pytest.fixture(scope="module")
def choose(library: ctypes.CDLL) -> Choose:
    """Gives `choose_outer`."""

    def of(*given: int, threads: int = 512) -> Plan:
        found = (ctypes.c_int64 * 4)()
        library.choose((ctypes.c_int64 * 8)(*given, threads), found)
        return Plan(*found)

    return of


@pytest.mark.parametrize(("width", "size"), [(2, 8), (4, 4), (4, 2), (1, 8), (1, 4), (1, 2)])
@pytest.mark.parametrize("items", [1, 4, 8, 16])
def test_a_block_covers_its_rows(width: int, size: int, items: int, choose: Choose) -> None:
    """Whole warps, at most 512 threads, every column and every row; 32 bytes of a column at least."""
    for cols, inner in product(COLUMNS, INNER):
        if inner % width:
            continue
        rows = 3 * inner
        plan = choose(rows, cols, inner, width, items, 2, size)
        threads = plan.lanes * plan.strands
        assert threads % 32 == 0
        assert 32 <= threads <= 512
        assert plan.lanes in (1, 2, 4, 8, 16, 32)
        assert (plan.tiles - 1) * plan.lanes * width < rows <= plan.tiles * plan.lanes * width
        # A warp reads whole pieces of 32 bytes, if only of several columns.
        beside = min(plan.lanes * width, inner) * min(32 // plan.lanes, cols)
        assert beside * size >= min(32, inner * cols * size)
        if plan.items:
            assert plan.items == items
            assert plan.strands * items >= cols
        else:  # not even where a block reads as little of each column as it may
            least = min(32 // (width * size), inner // width)
            assert -(-cols // items) * 2 ** (least - 1).bit_length() > 512


@pytest.mark.parametrize(
    ("given", "plan"),
    [
        # The channels of 64 images, floats: 128 bytes of each, 256 threads.
        ((64 * 3136, 256, 3136, 4, 8, 1, 4), (8, 8, 32, 64 * 98)),
        # 16-bit types: the same bytes are twice as many rows.
        ((64 * 3136, 256, 3136, 4, 8, 1, 2), (8, 16, 32, 64 * 49)),
        # Twice the columns in 512 threads: 64 bytes of each.
        ((64 * 3136, 512, 3136, 4, 8, 1, 2), (8, 8, 64, 64 * 98)),
        # Few columns: more threads side by side.
        ((8 * 1024, 3, 1024, 4, 8, 1, 4), (8, 32, 1, 64)),
        # Little after the columns: a block has the rows of several matrices.
        ((8 * 4, 64, 4, 4, 8, 1, 4), (8, 8, 8, 1)),
        ((1000 * 2, 48, 2, 1, 16, 1, 4), (16, 8, 4, 250)),
        # More columns than a block holds are read again: 32 bytes of each, so that they stay in a cache.
        ((2 * 64, 5000, 64, 4, 8, 2, 4), (0, 2, 256, 16)),
    ],
)
def test_what_is_chosen(given: tuple[int, ...], plan: tuple[int, ...], choose: Choose) -> None:
    assert choose(*given) == plan


@pytest.mark.parametrize(("divide", "most"), [("divide", 63), ("divide_small", 31)])
def test_division_by_a_multiplication(library: ctypes.CDLL, divide: str, most: int) -> None:
    draw, quotient = random.Random(0), getattr(library, divide)
    for bits in range(1, most):
        for _ in range(50):
            number, a = draw.randrange(1, 2**bits), draw.randrange(2**most)
            for dividend in (a, a // number * number, a // number * number - 1, number, number - 1):
                if dividend >= 0:
                    found = quotient(ctypes.c_int64(dividend), ctypes.c_int64(number))
                    assert found == dividend // number


def test_a_block_is_no_larger_than_its_shared_memory(choose: Choose) -> None:
    given = (64 * 3136, 256, 3136, 4, 4, 3, 4)
    assert choose(*given) == (4, 8, 64, 64 * 98)
    assert choose(*given, threads=256) == (4, 4, 64, 64 * 196)
    assert choose(*given, threads=64).items == 0


def test_columns_far_apart_are_read_again(choose: Choose) -> None:
    """A thread that holds columns knows by 32 bits how far apart they are."""
    far = 2**28
    assert choose(far, 64, far, 4, 8, 1, 4).items == 0
    assert choose(far, 8, far, 4, 8, 1, 4).items == 8


@pytest.mark.slow
def test_a_softmax_over_channels_on_the_cpu(tmp_path: Path) -> None:
    """The package of this form that the everyday loop builds: value and gradient beside torch in float64."""
    text = "dims: 4\norder: 1\nchain:\n  - softmax: {dim: 1}\n"
    package = built_alone(tmp_path, "over_channels", text, DTYPES)
    torch.manual_seed(0)
    # Fewer columns than a vector has, and more than a block; one row after them, an odd number, many.
    for shape in [(2, 3, 4, 4), (3, 33, 5, 7), (2, 300, 9, 1), (5, 7, 1, 1)]:
        for dtype in DTYPES:
            x = torch.randn(shape, dtype=dtype, requires_grad=True)
            cotangent = torch.randn(shape, dtype=dtype)
            exact = x.detach().double().requires_grad_()
            truth = torch.softmax(exact, 1)
            (wanted,) = torch.autograd.grad(truth, exact, cotangent.double())
            result = package.apply(x)
            (gradient,) = torch.autograd.grad(result, x, cotangent)
            near = {"rtol": 8 * torch.finfo(dtype).eps, "atol": 8 * torch.finfo(dtype).eps}
            torch.testing.assert_close(result.double(), truth, **near)
            torch.testing.assert_close(gradient.double(), wanted, **near)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize(
    "name",
    [
        "conv2d_channel_softmax_sigmoid",  # sums over rows, and operands of columns
        "conv_transpose3d_log_softmax_dropout",  # draws
        "conv2d_scale_normalize",  # operands of channels within a row
    ],
)
def test_every_form_at_its_boundaries(name: str, dtype: torch.dtype, shaped_packages: Path) -> None:
    """Held and read again, in vectors and row by row, from one lane to a warp, in one tile and in many."""
    chain = derive(ROOT / "tests" / "chains" / f"{name}.yaml")
    package = load(name, shaped_packages)
    for number, (cols, inner) in enumerate(product(COLUMNS, INNER)):
        # Of a single column, normalised, no gradient is left: only what rounding makes of it.
        if cols * inner <= 2**17 and (cols > 1 or name != "conv2d_scale_normalize"):
            matrices = (1, 5)[number % 2]
            after = (inner,) if chain.layout.rank == 4 else (1, inner)
            shape = (matrices, cols, 1, *after)
            case = verify.make_case(chain, shape, training=len(chain.modes) == 2, device="cuda")
            for error in verify.compare(package, chain, case, dtype):
                assert error.within, f"{shape}: {error}"
