"""Rows that 16 bytes do not divide, on the GPU, in tiles of a warp and of a block, against float64 truth."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from conftest import dtype_name

from fusegen.chain import Chain
from fusegen.tools.check import verify

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

#: Up to 32 lanes take a row, with at most 31, 23, 15 or 7 columns each (gpu_tile_plan.cuh), then a block.
#: Three are left out: of 300,000 such rows some hold numbers so close that rounding the mean decides.
COLUMNS = [1, 7, 15, 17, 31, 33, 63, 121, 241, 249, 497, 737, 993, 1001, 3971, 7937, 15873]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=dtype_name)
@pytest.mark.parametrize("name", ["layer_norm", "log_softmax"])
def test_every_number_of_columns(
    name: str, dtype: torch.dtype, measured: Callable[[str], tuple[Chain, ModuleType]]
) -> None:
    """One row, and so many that each warp takes several tiles, in several turns, the last one not full."""
    chain, built = measured(name)
    for cols in COLUMNS:
        for rows in (1, min(300_007, 4_000_000 // cols)):
            case = verify.make_case(chain, (rows, cols), training=False, device="cuda")
            for error in verify.compare(built, chain, case, dtype):
                assert error.within, f"{rows} rows of {cols} columns: {error}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=dtype_name)
def test_channels_begin_within_a_group_of_four(
    dtype: torch.dtype, measured: Callable[[str], tuple[Chain, ModuleType]]
) -> None:
    """Rows of several channels of odd length: a group norm's forward, whose operands belong to channels."""
    chain, built = measured("group_norm")
    for shape in [(300, 256, 1, 5), (70, 256, 3, 3), (300, 256, 7, 7), (9, 256, 1, 1)]:
        case = verify.make_case(chain, shape, training=False, device="cuda")
        for error in verify.compare(built, chain, case, dtype):
            assert error.within, f"{shape}: {error}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=dtype_name)
@pytest.mark.parametrize("cols", [5, 9, 33, 64, 541, 1001])
def test_gaps_before_rows_and_after_several(
    cols: int, dtype: torch.dtype, measured: Callable[[str], tuple[Chain, ModuleType]]
) -> None:
    """Columns of a wider tensor, a chunk of its channels, and rows that are read again; none is copied."""
    _, built = measured("log_softmax")
    wider = torch.randn(5000, cols + 3, device="cuda", dtype=dtype)
    channels = torch.randn(700, 12, cols, device="cuda", dtype=dtype)
    rows = torch.randn(1, 3, cols, device="cuda", dtype=dtype)
    for x in (wider[:, 1 : cols + 1], channels[:, 4:8], rows.expand(40, 3, cols)):
        mine, theirs = x.detach().requires_grad_(), x.detach().double().requires_grad_()
        cotangent = torch.randn_like(x.contiguous())
        found = built.apply(mine)
        wanted = theirs.log_softmax(dim=-1)
        (grad,) = torch.autograd.grad(found, mine, cotangent)
        (true_grad,) = torch.autograd.grad(wanted, theirs, cotangent.double())
        error = 2 * torch.finfo(dtype).eps * wanted.abs().max().item()
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=error)
        sums = cotangent.double().abs().sum(dim=-1).max().item()
        error = 2 * torch.finfo(dtype).eps * sums
        torch.testing.assert_close(grad.double(), true_grad, rtol=0, atol=error)
