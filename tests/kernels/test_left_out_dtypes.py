"""Kernels that are compiled for some dtypes alone, as tests have them to save time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_programs.build import build_together

from fusegen import load


@pytest.mark.skipif(
    torch.__version__.startswith("2.11."),
    reason="in torch 2.11 an exception in a stable-ABI operator ends the process",
)
@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_a_dtype_that_was_left_out_is_an_error(tmp_path: Path) -> None:
    """It is never computed as another one."""
    out = build_together(tmp_path, {"few": "chain: [tanh]\n"}, dtypes=["float32", "float16"])
    apply = load("few", out).apply
    x = torch.linspace(-2, 2, 33)
    torch.testing.assert_close(apply(x), torch.tanh(x))
    torch.testing.assert_close(apply(x.half()), torch.tanh(x.half()))
    for dtype in ("float64", "bfloat16"):
        with pytest.raises(RuntimeError, match=f"x: .*compiled without {dtype}.*FUSEGEN_DTYPES"):
            apply(x.to(getattr(torch, dtype)))
