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
    abs absolute acos acosh add asin asinh atan atan2 atanh ceil clamp cos cosh div divide erf erfc
    exp exp2 expm1 flatten floor hypot linear log log10 log1p log2 logaddexp matmul max maximum mean
    min minimum mul norm pow reciprocal round rsqrt scale sigmoid sign sin sinh softplus softsign
    sqrt square std sub sum tan tanh tanhshrink trunc where xlogy
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
    environment = files.environment()
    assert environment.undefined is jinja2.StrictUndefined
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ nobody }}").render()


@pytest.mark.parametrize("path", [p for p in TEMPLATES if p.suffix != ".css"], ids=lambda p: p.name)
def test_no_template_knows_an_op(path: Path) -> None:
    code = re.sub(r"//.*|(?s:\{#.*?#\})", "", path.read_text())  # comments may speak of an op
    words = set(re.findall(r"[A-Za-z_]+", code))
    assert not words & ({*registry(), *aliases()} - set(COMMON.split()))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_no_source_includes_torchs_slow_header(path: Path) -> None:
    assert "torch/extension.h" not in path.read_text()


def test_a_norm_after_a_bias_has_sums_of_both_kinds() -> None:
    """Of columns and by channel: one kind must not displace the other."""
    spec = ROOT / "tests" / "chains" / "conv_transpose2d_rms_norm_residual.yaml"
    text = pipeline.render_package(spec).files["form.h"]
    backward = text[text.index("struct BackwardForm") : text.index("struct DoubleBackwardForm")]
    assert re.search(r"ColSum<&K::Out::\w+,\s+To<&Args::\w+>>", backward)
    assert re.search(r"RunSum<&K::Out::\w+,\s+To<&Args::\w+>>", backward)


def test_no_package_has_much_to_read_of_its_kernels() -> None:
    """The loops are in the forms, written once: what is left of a kernel is read in a minute."""
    lines = [
        len((folder / "kernel.cu").read_text().splitlines())
        for folder in (ROOT / "generated").iterdir()
        if (folder / "kernel.cu").exists()
    ]
    assert sum(lines) <= 2000
    assert max(lines) <= 450


@pytest.mark.parametrize("path", [p for p in TEMPLATES if p.suffix == ".j2"], ids=lambda p: p.name)
def test_a_template_is_read_at_a_glance(path: Path) -> None:
    """It has few lines, and no condition within two loops; what would have them is a part of its own."""
    text = path.read_text()
    assert len(text.splitlines()) <= 150
    depth = deepest = 0
    for end in re.findall(r"\{%-?\s*(end)?(?:if|for|macro|call)\b", text):
        depth += -1 if end else 1
        deepest = max(deepest, depth)
    assert deepest <= 2
    assert depth == 0
