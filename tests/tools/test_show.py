"""`fusegen show`: the programs, the kernels and what they are made of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT
from shared.command import fusegen_here

from fusegen.toolchain import compilers
from fusegen.toolchain.compilers import find_nvcc

NVCC = find_nvcc()


def test_show_says_which_kernels_run_and_what_is_approximated() -> None:
    printed = fusegen_here("show", "matmul_gelu_softmax").stdout
    kernels, approximations = printed.partition("kernels\n")[2].split("approximations\n")
    assert "│ forward " in kernels
    assert "It reduces each row, to softmax_max, softmax_sum" in kernels
    row = next(line for line in approximations.splitlines() if "normcdf(-x)" in line)
    assert re.search(r"degree \d+, error 8\.9e-08 \(0\.75 ulp of float32\)", row)
    assert "approximations" not in fusegen_here("show", "matmul_swish_scale", "--passes").stdout


def test_a_chain_of_arithmetic_alone_approximates_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text("order: 1\nchain: [relu]\n")
    printed = fusegen_here("show", "plain.yaml", cwd=tmp_path).stdout
    assert "kernels\n" in printed
    assert "approximations" not in printed


def test_sources_are_those_of_the_package_to_the_byte() -> None:
    printed = fusegen_here("show", "swish_tanh_mish", "--source").stdout
    for file in ("element.h", "form.h", "kernel.cpp", "kernel.cu"):
        text = (ROOT / "generated" / "swish_tanh_mish" / file).read_text()
        assert f"// ==== {file} ====\n{text}" in printed
    assert "\x1b[" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--source", "--tex"), "--tex and --source: give one of them at a time"),
        (("--arch", "90"), "--arch and --dtype of `fusegen show` are for --ptx"),
        (("--ptx", "--dtype", "int8"), "--dtype int8: swish_tanh_mish is for float64, float32"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: tuple[str, ...], message: str) -> None:
    if "--ptx" in options and NVCC is None:
        pytest.skip("no nvcc here")
    done = fusegen_here("show", "swish_tanh_mish", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_ptx_without_nvcc_says_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "find_nvcc", lambda: None)
    done = fusegen_here("show", "swish_tanh_mish", "--ptx")
    assert done.returncode == 2
    assert "--ptx: nvcc was not found (looked in CUDA_HOME" in done.stderr


@pytest.mark.nvcc
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
def test_ptx_is_of_the_architecture_and_the_dtype(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("order: 1\nchain: [relu]\n")
    done = fusegen_here(
        *("show", "one.yaml", "--ptx", "--arch", "8.0", "--dtype", "half"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert ".target sm_80" in done.stdout
    named = re.findall(r"^// (.*)\n\.entry", done.stdout, re.MULTILINE)
    for kernel in ("ForwardForm<", "BackwardForm<"):
        assert any(kernel in name for name in named)
