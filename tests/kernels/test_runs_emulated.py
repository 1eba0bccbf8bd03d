"""Copies between strides (runs.h, runs.cuh), run thread by thread by a C++ compiler."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from shared.emulated import emulated
from torch import Tensor

MAIN = """
#include "fusegen/runs.cuh"
// Copies if there are runs; returns the bytes of an access, 0 if there is none, and -1 without runs.
extern "C" int run(long rank, const long* sizes, const long* reads, const long* writes, void* from,
                   void* to, int* dims) {
  fusegen::Runs copy{};
  if (!fusegen::find_runs(rank, (const int64_t*)sizes, (const int64_t*)reads,
                          (const int64_t*)writes, copy)) return -1;
  copy.from = from, copy.to = to;
  *dims = copy.dims;
  const int access = fusegen::access_of(copy, 2);
  if (access && fusegen::runs_copied_cuda<2>(copy, nullptr)) return -2;
  return access;
}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return emulated(tmp_path_factory.mktemp("emulated"), MAIN).run


def copied(run: Any, to: Tensor, x: Tensor) -> tuple[int, int]:
    """Copy 16-bit elements; return the bytes of an access, and the dims beside the runs."""
    numbers = [(ctypes.c_long * x.dim())(*given) for given in (x.shape, x.stride(), to.stride())]
    dims = ctypes.c_int()
    pointers = (ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(to.data_ptr()))
    return run(ctypes.c_long(x.dim()), *numbers, *pointers, ctypes.byref(dims)), dims.value


def numbered(*shape: int) -> Tensor:
    """Return different 16-bit numbers."""
    return torch.randperm(torch.Size(shape).numel()).to(torch.int16).view(shape)


@pytest.mark.parametrize(
    ("shape", "order", "access", "dims"),
    [
        ((5, 7, 3, 16), (0, 2, 1, 3), 16, 3),
        ((5, 7, 3, 12), (0, 2, 1, 3), 8, 3),
        ((5, 7, 3, 6), (0, 2, 1, 3), 0, 3),  # of 12 bytes
        ((5, 7, 3, 8), (0, 1, 3, 2), -1, 0),  # a transposition
        ((2, 4, 3, 4, 3, 8), (0, 1, 3, 2, 4, 5), 16, 3),  # the windows of images
        ((2, 3, 4, 5, 3, 8), (4, 3, 2, 1, 0, 5), 16, 5),
        ((2, 3, 2, 5, 2, 2, 8), (5, 4, 3, 2, 1, 0, 6), -1, 0),  # too many dims
        ((40, 33, 8), (1, 0, 2), 16, 2),  # several blocks
        ((9, 24), (0, 1), 16, 0),
        ((1, 1), (0, 1), -1, 0),
    ],
)
def test_a_copy(
    shape: tuple[int, ...], order: tuple[int, ...], access: int, dims: int, run: Any
) -> None:
    x = numbered(*shape).permute(order)
    to = torch.zeros(x.shape, dtype=torch.int16)
    assert copied(run, to, x)[0] == access
    if access > 0:
        assert torch.equal(to, x)
        assert copied(run, to, x)[1] == dims


def test_a_part_of_a_tensor(run: Any) -> None:
    """To and from what has gaps, and from what is expanded; the gaps stay."""
    x, whole = numbered(6, 3, 16), torch.full((6, 3, 48), -1, dtype=torch.int16)
    to = whole[..., 16:32]
    assert copied(run, to, x)[0] == 16
    assert torch.equal(to, x)
    assert (whole[..., :16] == -1).all()
    assert (whole[..., 32:] == -1).all()
    back = torch.zeros(6, 3, 16, dtype=torch.int16)
    assert copied(run, back, to)[0] == 16
    assert torch.equal(back, x)
    assert copied(run, back, x[:1].expand(6, 3, 16))[0] == 16
    assert torch.equal(back, x[:1].expand(6, 3, 16))
    assert copied(run, back, whole[..., 15:31])[0] == 0  # it begins between two accesses
