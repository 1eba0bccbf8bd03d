"""Rendering: what is committed is what the specs render to, and who may know what."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest
from conftest import NAMES, ROOT, SPECS

from fusegen import render
from fusegen.chain import Chain
from fusegen.ops import aliases, registry
from fusegen.render import files
from fusegen.toolchain import builder, pipeline

TEMPLATES = sorted(p for p in (ROOT / "templates").rglob("*") if p.is_file())

#: Names of ops that C++, the C library and `Math` have too, and plain words.
COMMON = """
    abs absolute add clamp cos div erf exp expm1 linear log log1p max maximum mean min minimum mul norm pow
    reciprocal rsqrt scale sigmoid sign sin softplus softsign sqrt square std sub sum tanh
    tanhshrink
"""


@pytest.mark.slow  # and `make check` looks too
def test_what_is_committed_is_what_the_specs_render_to() -> None:
    assert builder.check(SPECS, out=ROOT / "generated") == []


def test_a_difference_is_shown(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).mkdir()
    (tmp_path / NAMES[0] / "kernel.h").write_text("stale\n")
    differences = builder.check([SPECS[0]], out=tmp_path)
    assert any("-stale" in d for d in differences)


@pytest.mark.parametrize("name", NAMES)
def test_rendering_is_stable(name: str, derived: Callable[[str], Chain]) -> None:
    assert render.render(derived(name)) == render.render(derived(name))


@pytest.mark.parametrize("name", ["gemm_batchnorm_scale_softmax", "matmul_gelu_softmax"])
def test_each_node_of_a_program_has_a_line_of_its_own(
    name: str, derived: Callable[[str], Chain]
) -> None:
    chain = derived(name)
    lines = set(render.render(chain)["element.h"].splitlines())
    for kernel in (k for mode in chain.modes for whole in mode.kernels for k in whole.parts):
        said = [f"-> {kernel.returns}", *kernel.comment]
        assert not [line for line in said if f"//   {line}" not in lines]


def test_an_undefined_name_in_a_template_is_an_error() -> None:
    environment = files._environment()
    assert environment.undefined is jinja2.StrictUndefined
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ nobody }}").render()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_no_template_knows_an_op(path: Path) -> None:
    code = re.sub(r"//.*|(?s:\{#.*?#\})", "", path.read_text())  # comments may speak of an op
    words = set(re.findall(r"[A-Za-z_]+", code))
    assert not words & ({*registry(), *aliases()} - set(COMMON.split()))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_no_source_includes_torchs_slow_header(path: Path) -> None:
    assert "torch/extension.h" not in path.read_text()


@pytest.fixture(scope="module")
def both_sums() -> str:
    """The CUDA kernels of a chain whose backward has sums of columns and sums by channel."""
    spec = ROOT / "tests" / "chains" / "conv_transpose2d_rms_norm_residual.yaml"
    return pipeline.render_package(spec).files["kernel.cu"]


def test_shared_memory_has_room_for_sums_of_both_kinds(both_sums: str) -> None:
    """Of columns, which registers may hold instead, and by channel: a norm after a bias has both."""
    plan = both_sums[
        both_sums.index("struct BackwardPlan") : both_sums.index("void launch_backward")
    ]
    assert "needs.sums = sizeof(T) * V * 1;" in plan
    assert "needs.run_sums = sizeof(T) * (V / needs.fold) * 1;" in plan
    resident = both_sums[
        both_sums.index("backward_resident(") : both_sums.index("backward_staged(")
    ]
    assert resident.count("place += live_sums ? 0 : sizeof(T) * V * ITEMS * threads;") == 1
    assert resident.count("place += sizeof(T) * (V / fold) * ITEMS * threads;") == 1


def test_every_kernel_leaves_every_partial_sum(both_sums: str) -> None:
    """A norm after a bias has sums of columns and sums by channel; one kind must not displace the other."""
    kernels = re.findall(r"__global__ void.*?^}", both_sums, re.MULTILINE | re.DOTALL)
    checked = 0
    for kernel in kernels:
        parameters, body = kernel.split("{\n", 1)
        for name in re.findall(r"\w+_partial", parameters):
            assert re.search(rf"\b{name}\b", body), f"nothing is written to {name}: {parameters}"
            checked += 1
    assert checked >= 8
