"""Every way in which the GPU holds a row, at the lengths where the choice changes, against float64 truth."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from conftest import DTYPES, dtype_name

from fusegen.chain import Chain
from fusegen.tools.check import verify

#: What a thread, a warp, a block and a cluster hold are powers of two (choose_rows.cuh): each form ends at
#: one of these lengths, and one access (16 bytes) or one element beyond it the next begins.
POWERS = [2**k for k in range(3, 19)]


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize(
    "name",
    [
        "matmul_gelu_softmax",
        "matmul_dropout_softmax",
        "gemm_batchnorm_scale_softmax",
        "gated_rms_norm",
    ],
)
def test_every_form_at_its_boundaries(
    name: str,
    dtype: torch.dtype,
    package: Callable[[str], ModuleType],
    derived: Callable[[str], Chain],
) -> None:
    """From lanes of a warp to streamed rows: in 16-byte accesses, and one element at a time."""
    chain, built = derived(name), package(name)
    access = 16 // dtype.itemsize
    for power in POWERS:
        for cols in {power - access, power, power + access, power + 1} - {0}:
            rows = 9 if cols > 4096 else 67  # batch norm leaves next to no gradient of two or three
            case = verify.make_case(
                chain, (rows, cols), training=len(chain.modes) == 2, device="cuda"
            )
            for error in verify.compare(built, chain, case, dtype):
                assert error.within, f"{cols} columns: {error}"


@pytest.mark.gpu
@needs_gpu
def test_rows_that_one_block_streams(
    launched: Callable[[str, str], tuple[Chain, ModuleType]],
) -> None:
    """As on a chip without clusters; with sums over columns and a maximum raised on the way."""
    chain, built = launched("matmul_gelu_softmax", "cluster: 1")
    for dtype in DTYPES:
        for shape in [(3, 2**15 + 1), (200, 2**15 + 8), (2, 2**18 + 7)]:
            case = verify.make_case(chain, shape, training=False, device="cuda")
            for error in verify.compare(built, chain, case, dtype):
                assert error.within, f"{shape}: {error}"


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        # a block for each row, several, and rows in shared memory: of a block, of clusters of two to sixteen
        (
            "layer_norm",
            [(600, 8192), (600, 8200), (9, 32769), (300, 40000), (9, 2**17), (9, 2**19)],
        ),
        # lanes with several accesses each, where rows fill the chip
        ("layer_norm", [(70_000, 36), (70_000, 96), (70_001, 144), (70_000, 384)]),
        # along rows and streamed where there are rows enough, else held
        (
            "cross_entropy",
            [(2300, 4096), (2300, 4099), (2300, 9000), (1100, 2**15 + 8), (9, 2**16)],
        ),
        # channels that accesses share or do not, rows in shared memory
        # and sums by channel of lanes, of a block and of blocks, in short runs and long ones
        (
            "group_norm",
            [
                *[(3, 256, 16, 16), (70, 256, 56, 56), (9, 256, 57, 55), (2, 256, 200, 200)],
                *[(40, 256, 3, 3), (300, 256, 5, 8), (70, 256, 28, 28), (3, 256, 1, 1)],
            ],
        ),
        # rings: rows that one block holds, several, and none; that begin between two accesses; a ring of
        # more than a row; few rows, which many blocks share; channels shorter than a warp's step
        (
            "swish_group_norm_hardswish",
            [
                *[
                    (40, 16, 8, 32, 64),
                    (40, 16, 5, 33, 65),
                    (5, 16, 9, 65, 129),
                    (1, 16, 31, 63, 63),
                ],
                *[(1, 16, 3, 1001, 333), (40, 16, 17, 33, 31), (3, 16, 2, 127, 129)],
            ],
        ),
        ("swish_bias_group_norm", [(3, 4096), (67, 4096), (1025, 4096)]),
        ("group_norm_of_512", [(2, 8192), (300, 8192)]),
        # odd rows in wide accesses: some in each block, streamed by one, by several
        ("subtract_tanh", [(3, 64, 5, 7), (2, 64, 33, 65), (40, 64, 129, 131), (1, 3, 1023, 65)]),
    ],
)
def test_long_rows_of_little_mathematics(
    name: str,
    shapes: list[tuple[int, ...]],
    dtype: torch.dtype,
    measured: Callable[[str], tuple[Chain, ModuleType]],
) -> None:
    """What stages compute again, what is read ahead of a row's end, and sums that wait for no other."""
    chain, built = measured(name)
    for shape in shapes:
        case = verify.make_case(chain, shape, training=False, device="cuda")
        for error in verify.compare(built, chain, case, dtype):
            assert error.within, f"{shape}: {error}"


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("cols", [40_001, 2**19 + 3])
@pytest.mark.parametrize("name", ["layer_norm", "log_softmax", "gelu_group_norm"])
def test_extremes_in_a_streamed_row(
    name: str, cols: int, measured: Callable[[str], tuple[Chain, ModuleType]]
) -> None:
    """A sum of squares about a mean that the same sweep finds, and a maximum that rises on the way.

    Each row has one extreme. Infinite rows have no gradient.
    """
    extremes = [1e4, -1e4, 1e-40, -88.0, float("inf"), float("-inf"), float("nan")]
    chain, built = measured(name)
    for values in (extremes, extremes[:4]):
        shape = (
            (len(values), 64, cols // 64, 1) if name == "gelu_group_norm" else (len(values), cols)
        )
        case = verify.make_case(chain, shape, training=False, device="cuda")
        for row, value in enumerate(values):
            case.x[row].view(-1)[(997 * (row + 1)) % case.x[row].numel()] = value
        for dtype in (torch.float32, torch.bfloat16):
            for error in verify.compare(built, chain, case, dtype):
                if len(values) == 4 or error.name == "output":
                    assert error.within, f"{dtype}: {error}"


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8), (33, 65)])
def test_channels_of_few_columns_and_of_many(
    size: tuple[int, int], measured: Callable[[str], tuple[Chain, ModuleType]]
) -> None:
    """On the CPU a channel's columns are a loop of their own from 64 on, cut where a block of 1024 ends."""
    chain, built = measured("group_norm")
    for dtype in DTYPES:
        case = verify.make_case(chain, (2, 64, *size), training=False)
        for error in verify.compare(built, chain, case, dtype):
            assert error.within, f"{dtype}: {error}"
