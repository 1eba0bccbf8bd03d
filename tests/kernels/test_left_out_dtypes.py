"""Kernels that are compiled for some dtypes alone: those of a spec, or of a call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import render_into

from fusegen import load
from fusegen.base.dtypes import DTYPES
from fusegen.base.errors import UserError
from fusegen.toolchain import builder
from fusegen.toolchain.compilers import find_compilers
from fusegen.toolchain.ninja_file import dtypes_of, ninja_text
from fusegen.tools.check import verify

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("chosen_by", ["spec", "call"])
def test_a_dtype_that_was_left_out_is_an_error(chosen_by: str, tmp_path: Path) -> None:
    """It is never computed as another one."""
    of_spec = "dtypes: [float16, float32]\n" if chosen_by == "spec" else ""
    spec = tmp_path / f"few_of_{chosen_by}.yaml"
    spec.write_text(f"{of_spec}chain: [tanh]\n")
    of_call = () if of_spec else ("float32", "float16")
    builder.build([spec], out=tmp_path, backend="cpu", dtypes=of_call)
    apply = load(spec.stem, tmp_path).apply
    x = torch.linspace(-2, 2, 33)
    torch.testing.assert_close(apply(x), torch.tanh(x))
    torch.testing.assert_close(apply(x.half()), torch.tanh(x.half()))
    for dtype in ("float64", "bfloat16"):
        with pytest.raises(TypeError, match=f"x: the package was built without {dtype}; add it"):
            apply(x.to(getattr(torch, dtype)))
    verdicts = verify.check([spec], tmp_path)
    assert all(verdict.passed for verdict in verdicts)
    assert verdicts[0].worst == "not run: the package is built without float64"
    assert {verdict.what.split(", ")[-1] for verdict in verdicts[1:]} == {"float32", "float16"}


def test_cuda_has_a_translation_unit_for_each_dtype_that_is_chosen(tmp_path: Path) -> None:
    """They are compiled side by side; the others' entry points are null."""
    spec = tmp_path / "few.yaml"
    spec.write_text("dtypes: [bfloat16, float32]\nchain: [tanh]\n")
    (tmp_path / "few").mkdir()
    render_into(tmp_path / "few", spec)
    assert dtypes_of(tmp_path / "few") == ("float32", "bfloat16")
    units = {
        tuple(sorted(re.findall(r"few/kernel_(\w*\d)\.o: kernel_\1 few/kernel.cu", text)))
        for chosen in (DTYPES, ("bfloat16", "float64"))
        for text in [ninja_text(tmp_path, ["few"], find_compilers(), ["90"], chosen)]
    }
    assert units == {("bfloat16", "float32"), ("bfloat16",)}


def test_a_choice_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    spec = tmp_path / "few.yaml"
    spec.write_text("dtypes: [bfloat16]\nchain: [tanh]\n")
    with pytest.raises(UserError, match="few is for bfloat16 alone, as its spec says"):
        builder.build([spec], out=tmp_path, backend="cpu", dtypes=["float32"])
    with pytest.raises(UserError, match="--dtypes float128: no dtype of a kernel"):
        builder.build([spec], out=tmp_path, backend="cpu", dtypes=["float128"])
