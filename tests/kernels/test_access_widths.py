"""Accesses of 32 bytes, as chips of compute capability 10.0 have them: the same numbers on any other."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from conftest import DTYPES

from fusegen.chain import Chain
from fusegen.tools.check import verify

#: Pointwise with sums over columns, and flat; what 32 bytes divide, what only 16 do, and neither.
NAMES = ["matmul_add_swish_tanh_gelu_hardtanh", "matmul_swish_scale", "swish_tanh_mish"]
SHAPES = [(1, 32), (67, 64), (33, 1024 + 8), (31, 1023), (3, 65536 + 4), (5, 16)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", NAMES)
def test_accesses_of_32_bytes(
    name: str, launched: Callable[[str, str], tuple[Chain, ModuleType]]
) -> None:
    chain, built = launched(name, "access: 32")
    for dtype in DTYPES:
        for shape in SHAPES:
            case = verify.make_case(chain, shape, training=False, device="cuda")
            for error in verify.compare(built, chain, case, dtype):
                assert error.within, f"{dtype}, {shape}: {error}"
