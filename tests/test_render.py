"""Rendering: what is committed is what the specs render to, and who may know what."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest
from conftest import NAMES, ROOT, SPECS

from fusegen import builder, pipeline, render
from fusegen.chain import Chain
from fusegen.ops import aliases, registry

TEMPLATES = sorted(p for p in (ROOT / "templates").rglob("*") if p.is_file())

#: Names of ops that C++, the C library and `Math` have too, and plain words.
COMMON = """
    abs absolute add clamp cos div erf exp expm1 linear log log1p max maximum mean min minimum mul norm pow
    reciprocal rsqrt scale sigmoid sign sin softplus softsign sqrt square std sub sum tanh
    tanhshrink
"""

#: The pipeline, from top to bottom: a module imports only what stands above it.
LAYERS = [
    {"version", "errors", "paths", "stamp", "files", "activity"},
    {"atoms", "formula_constants", "formula_text"},
    {"atom_values", "complements", "choices", "rounding"},
    {"program"},
    {"program_builder"},
    {"formula_nodes"},
    {"ops"},
    {"formula_functions"},
    {"layout"},
    {"formula", "formula_syntax"},
    {"spec_dims"},
    {"spec_types", "spec_words", "spec_yaml"},
    {"code_names"},
    {"spec_names"},
    {"spec_empty", "spec_sections", "spec_scope", "tuned"},
    {"spec_operand", "spec_attribute", "spec_size"},
    {"spec_step", "spec_formula"},
    {"spec_chain", "spec"},
    {"calculus"},
    {"lower"},
    {"extent"},
    {"chain_layout"},
    {"chain_cuts"},
    {"leg_operands", "leg_outline"},
    {"leg_program"},
    {"leg"},
    {"chain"},
    {"torch_text"},
    {"stepwise"},
    {"module_legs", "module_docs", "module_forward"},
    {"module", "module_names"},
    {"render"},
    {"fitted_header"},
    {"pipeline"},
    {"draws", "random_operands", "torch_call"},
    {"eager_formula"},
    {"eager", "eager_program"},
    {"eager_chain", "condition"},
    {"comparison"},
    {"source_hash", "spec_files"},
    {
        "compilers",
        "freshness",
        "stamping",
        "ninja_file",
        "compile_errors",
        "build_lock",
        "ninja_run",
    },
    {"builder"},
    {"display", "manual", "verify", "bench"},
    {"tune"},
    {"cli_options"},
    {"cli_measuring"},
    {"cli"},
]


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
    environment = render._environment()
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


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "fusegen":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("fusegen."):
                found.add(node.module.split(".")[1])
    return found


def _level(name: str) -> int | None:
    return next((n for n, layer in enumerate(LAYERS) if name in layer), None)


@pytest.mark.parametrize("path", sorted((ROOT / "fusegen").rglob("*.py")), ids=lambda p: p.stem)
def test_imports_point_down_the_pipeline(path: Path) -> None:
    parts = path.relative_to(ROOT / "fusegen").parts
    own = parts[0].removesuffix(".py")
    if own in ("__init__", "__main__", "runtime"):
        return  # the way in, and what generated packages need: see below
    level = _level(own)
    assert level is not None, f"{own} has no place in LAYERS"
    for name in _imports(path) - {own, "runtime", "__version__"}:
        below = _level(name)
        assert below is not None, f"{own} imports {name}, which has no place in LAYERS"
        assert below <= level, f"{own} imports {name}, which stands below it"


def test_the_runtime_imports_torch_alone() -> None:
    for path in (ROOT / "fusegen" / "runtime").glob("*.py"):
        assert _imports(path) <= {"runtime", "stamp", "paths", "version"}, path
        roots = {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        }
        assert not roots & {"sympy", "jinja2", "pydantic", "yaml", "rich", "typer"}


def test_shared_memory_has_room_for_sums_of_both_kinds() -> None:
    """Of columns, which registers may hold instead, and by channel: a norm behind a bias has both."""
    spec = ROOT / "tests" / "chains" / "conv_transpose2d_rms_norm_residual.yaml"
    text = pipeline.render_package(spec).files["kernel.cu"]
    plan = text[text.index("struct BackwardPlan") : text.index("void launch_backward")]
    assert "needs.sums = sizeof(T) * V * 1;" in plan
    assert "needs.run_sums = sizeof(T) * (V / needs.fold) * 1;" in plan
    held = text[text.index("backward_held(") : text.index("backward_staged(")]
    assert held.count("place += held_sums ? 0 : sizeof(T) * V * ITEMS * threads;") == 1
    assert held.count("place += sizeof(T) * (V / fold) * ITEMS * threads;") == 1


def test_every_kernel_leaves_every_partial_sum() -> None:
    """A norm behind a bias has sums of columns and sums by channel; one kind must not displace the other."""
    spec = ROOT / "tests" / "chains" / "conv_transpose2d_rms_norm_residual.yaml"
    text = pipeline.render_package(spec).files["kernel.cu"]
    kernels = re.findall(r"__global__ void.*?^}", text, re.MULTILINE | re.DOTALL)
    checked = 0
    for kernel in kernels:
        parameters, body = kernel.split("{\n", 1)
        for name in re.findall(r"\w+_partial", parameters):
            assert re.search(rf"\b{name}\b", body), f"nothing is written to {name}: {parameters}"
            checked += 1
    assert checked >= 8
