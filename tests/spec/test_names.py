"""Users name operands, arguments and steps as they like: what it is in C++ is fusegen's own business."""

from __future__ import annotations

import ast
import keyword
import re
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT, once, render_into, shared
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs.build import build_together
from shared.awkward_names import ALL, FORMS, complaints, reference, roles, spec_text, write
from shared.nvcc_front_end import nvcc_complaints

from fusegen import load
from fusegen.base import paths
from fusegen.base.errors import SpecError
from fusegen.chain import derive
from fusegen.spec import parse
from fusegen.spec.code_names import code_names
from fusegen.spec.names import problem
from fusegen.toolchain import compilers, pipeline
from fusegen.toolchain.compilers import find_nvcc

NVCC = find_nvcc()
#: The names of each package, a part of them all; its name begins with the form of its kernels.
PACKAGES = ("pointwise", "rows", "image", "segments", "rows_2", "image_2")
BATCHES = {name: ALL[place :: len(PACKAGES)] for place, name in enumerate(PACKAGES)}
#: How many names a package takes at once: torch has operators of at most 64 arguments.
AT_ONCE = 69
#: What else is kept in a Module, and is called in it.
MODULE = """
order: 1
arguments: {template: int, operator: {type: float, default: 0.5}, volatile: {type: shape, default: [6]}}
operands:
  out: {kind: col, init: randn, shape: volatile}
  offset: {kind: col, init: ones, shape: [template]}
  this: col
  union: full
chain:
  - linear: {name: class_, in_features: template, out_features: 6}
  - mul: out
  - batch_norm: {name: y, eps: operator}
  - dropout: {name: rows}
  - expr: {formula: "x + this * offset", name: weight_}
  - mul: union
  - expr: "x + weight_"
"""


def form_of(name: str) -> str:
    return name.partition("_")[0]


Built = Callable[[str], ModuleType]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Gives a package of names, built once for all workers."""
    out = shared(tmp_path_factory) / "names"

    def build() -> None:
        texts = {f"names_{n}": spec_text(names, form_of(n)) for n, names in BATCHES.items()}
        build_together(out, texts | {"names_module": MODULE}, together=2, dtypes=["float64"])

    once(tmp_path_factory, "names", build)
    return lambda name: load(name, out / "generated")


@pytest.mark.parametrize("batch", BATCHES)
def test_every_name_means_what_the_user_named(batch: str, built: Built) -> None:
    """Values and gradients of chains whose operands, arguments and steps have every name once reserved."""
    names, form = BATCHES[batch], form_of(batch)
    chain = derive(parse(spec_text(names, form), f"names_{batch}"))
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": FORMS[form][2], **chain.operand_shapes(FORMS[form][2])}
    tensors = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for name, shape in shapes.items()
    }
    _, arguments, _ = roles(names)
    numbers = dict(zip(arguments, torch.linspace(-1, 1, len(arguments)).tolist(), strict=True))
    got = built(f"names_{batch}").apply(**tensors, **numbers)
    wanted = reference(names, form, tensors, numbers)
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)
    cotangent = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad(y, list(tensors.values()), cotangent) for y in (got, wanted)]
    for name, ours, theirs in zip(tensors, *gradients, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_module_keeps_the_users_names(built: Built) -> None:
    package = built("names_module")
    model = package.Module(6).double()
    assert {"out", "offset", "class_.weight", "y.running_mean"} <= set(model.state_dict())
    x, given_this, given_union = torch.randn(4, 6), torch.randn(6), torch.randn(4, 6)
    x, given_this, given_union = (t.double() for t in (x, given_this, given_union))
    model.eval()
    got = model(x, this=given_this, union=given_union)
    before = model.y(model.class_(x) * model.out) + given_this * model.offset
    torch.testing.assert_close(got, before * given_union + before)
    model.train()
    model.rows.p = 0.0
    value = model(x, given_this, given_union)
    assert value.isfinite().all()
    assert model.y.num_batches_tracked == 1


def generated_names(path: Path) -> list[str]:
    """Return every name in the sources of a spec's package that a spec may use.

    What the package's Python calls is refused, which another test holds.
    """
    files = pipeline.render_package(path).files
    words = {w for text in files.values() for w in re.findall(r"[^\W\d]\w*", text)}
    nodes = list(ast.walk(ast.parse(files["__init__.py"])))
    own = {node.id for node in nodes if isinstance(node, ast.Name)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return sorted(w for w in words - own if problem(w) is None and len(w) < 60)


@pytest.mark.parametrize("form", ["pointwise", "segments"])
def test_names_of_the_generated_code_itself_clash_with_nothing(form: str, tmp_path: Path) -> None:
    """Whatever a package of this form has in its sources, as names of another one: it compiles.

    Segments have the kernels of rows and of images, so their own names are those of all.
    """
    neutral = [f"name{i}" for i in range(12)]

    def names_of(form: str) -> list[str]:
        return generated_names(write(tmp_path / form, "neutral", spec_text(neutral, form)))

    names = names_of(form)
    if form == "segments":
        names = sorted({*names, *names_of("rows"), *names_of("image")})
    assert len(names) > 200
    last = len(names) - AT_ONCE  # the last spec has as many names as the others
    paths = [
        write(tmp_path, f"own_{start}", spec_text(names[start : start + AT_ONCE], form))
        for start in [*range(0, last, AT_ONCE), last]
    ]
    assert complaints(paths, tmp_path / "sources") == ""


@pytest.mark.nvcc
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.parametrize("form", ["pointwise", "segments"])
def test_kernels_of_every_name_compile_for_the_gpu(form: str, tmp_path: Path) -> None:
    """Segments have the kernels of rows and of images."""
    path = write(tmp_path, f"gpu_{form}", spec_text(BATCHES[form], form))
    render_into(tmp_path, path)
    assert nvcc_complaints(tmp_path / "kernel.cu") == ""


@pytest.mark.parametrize("name", ["torch", "apply", "_chain"])
def test_what_the_package_itself_calls_is_refused(name: str, tmp_path: Path) -> None:
    text = (
        "arguments: {in_features: int, out_features: int}\noperands:\n"
        f"  {name}: col\nchain:\n  - linear\n  - dropout\n  - add: {name}\n"
    )
    path = write(tmp_path, "hiding", text)
    wrong = (
        rf"hiding\.yaml:3: '{name}' cannot be a name here: the package's own Python code uses it"
    )
    with pytest.raises(SpecError, match=f"{wrong}; choose another, such as {name}_"):
        pipeline.render_package(path)


@pytest.mark.parametrize(
    "steps",
    [
        # a variable of the steps one by one, which a hook asks for
        ["linear", "batch_norm", "relu: {name: torch}", "sigmoid", "mul: torch"],
        ["linear", "expr: {formula: a + b, parts: [a, b, torch]}", "batch_norm", "mul: torch"],
        # a variable of the Module's forward
        ["linear", "expr: {name: c, formula: a, parts: [a, torch]}", "matmul: torch.T", "mul: c"],
    ],
)
def test_a_value_that_hides_what_a_function_calls_is_refused(
    steps: list[str], tmp_path: Path
) -> None:
    lines = "".join(f"  - {step}\n" for step in steps).replace(
        "- linear", "- linear: {in_features: size, out_features: 6 * size}"
    )
    path = write(tmp_path, "hiding", f"arguments: {{size: int}}\norder: 0\nchain:\n{lines}")
    with pytest.raises(
        SpecError, match=r"hiding\.yaml:\d: 'torch' cannot be a name here: the pack"
    ):
        pipeline.render_package(path)


@pytest.mark.parametrize("name", ["y_", "_segment2"])
def test_a_value_that_is_handed_on_hides_nothing(name: str, tmp_path: Path) -> None:
    text = (
        f"dims: 3\nchain:\n  - tanh: {{name: {name}}}\n  - gelu\n  - softmax: {{dim: 2}}\n"
        f"  - softmax: {{dim: 1}}\n  - mul: {name}\n"
    )
    with pytest.raises(SpecError, match=rf"hiding\.yaml:3: '{name}' cannot be a name here"):
        pipeline.render_package(write(tmp_path, "hiding", text))
    good = write(tmp_path, "good", text.replace(name, f"{name}early"))
    assert pipeline.render_package(good).files


def test_a_value_that_forward_keeps_hides_no_helper(tmp_path: Path) -> None:
    """It would be a local variable there, before the helper of that name is called."""
    text = (
        "arguments: {in_channels: int, out_channels: int, kernel_size: int}\n"
        "outputs: [pool_windows, tanh]\nchain:\n  - conv2d\n  - relu\n"
        "  - max_pool2d: {name: pool_windows, kernel_size: 2}\n"
        "  - conv2d: {name: second, in_channels: out_channels, out_channels: 4, kernel_size: 1}\n"
        "  - tanh\n"
    )
    with pytest.raises(SpecError, match=r"hiding\.yaml:6: 'pool_windows' cannot be a name here"):
        pipeline.render_package(write(tmp_path, "hiding", text))
    good = text.replace("pool_windows", "pooled")
    assert pipeline.render_package(write(tmp_path, "good", good)).files


def test_macros_are_known() -> None:
    """What a header defines would be replaced in a name."""
    found = compilers.find_compilers()
    commands = [
        ("fusegen/cpu.h", "c++", [str(found.cxx), *found.kernel_flags("portable"), "-dM"]),
        ("fusegen/binding.h", "c++", [str(found.cxx), *found.binding_flags("cpu"), "-dM"]),
    ]
    if NVCC is not None:
        nvcc = [str(NVCC), "-std=c++17", f"-I{paths.include()}", "-Xcompiler", "-dM"]
        commands.append(("fusegen/cuda.cuh", "cu", nvcc))
    for header, language, command in commands:
        done = subprocess.run(
            [*command, "-E", "-x", language, "-"],
            input=f"#include <{header}>\n",
            capture_output=True,
            text=True,
            check=True,
        )
        macros = set(re.findall(r"^#define (\w+)", done.stdout, re.MULTILINE))
        named = {m for m in macros if problem(m) is None}
        assert "FUSEGEN_FN" in named
        assert header == "fusegen/binding.h" or {"INFINITY", "alloca"} <= named
        codes = code_names(named, ())
        assert not {m for m in named if codes[m] in macros}


IDENTIFIERS = st.text(
    st.characters(categories=("L", "Nl", "Nd", "Mn", "Mc", "Pc")), min_size=1, max_size=12
)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(st.lists(st.one_of(IDENTIFIERS, st.sampled_from(ALL)), min_size=1, max_size=8, unique=True))
def test_any_text_is_a_name_or_is_refused_with_a_remedy(names: list[str]) -> None:
    for name in names:
        wrong = problem(name)
        if name.isidentifier() and not wrong:
            assert not keyword.iskeyword(name)
            assert unicodedata.is_normalized("NFKC", name)
        elif name.isidentifier():
            assert re.search("choose another|write it so", wrong or "")
        else:
            assert "is no name: a letter or _" in (wrong or "")
    good = [name for name in names if problem(name) is None]
    codes = code_names(good, ())
    assert len(set(codes.values())) == len(codes)
    assert all(
        re.fullmatch("[A-Za-z][A-Za-z0-9_]*", code) and "__" not in code for code in codes.values()
    )
    # A name that is given again for what clashes is not itself one that clashes.
    assert not set(codes.values()) & {n for n in good if codes[n] != n}
    operands = ", ".join(f'"{name}": col' for name in good)
    text = f"operands: {{{operands}}}\nchain:\n  - expr: x + {' + '.join(good)}\n"
    if good:
        spec = parse(text, "example")
        assert [o.name for o in spec.operands] == good
        formula = spec.steps[0].formula
        assert formula is not None
        assert {str(s) for s in formula.free_symbols} == {"x", *good}


@pytest.mark.parametrize("name", ["beta", "gamma", "zeta", "N", "S", "I", "E", "pi", "exp", "cols"])
def test_a_formula_means_the_operand(name: str) -> None:
    spec = parse(
        f"operands: {{{name}: col}}\nchain:\n  - expr: exp(x) + {name} * mean(x)\n", "example"
    )
    (program, *_) = derive(spec).modes[0].programs
    code = spec.code(name)
    (operand,) = [i for i in program.inputs if i.name == code]
    assert operand.differentiable
    assert any(operand in node_args for node_args in _uses(program))


def _uses(program: object) -> list[tuple[object, ...]]:
    from fusegen.program import Program, arguments

    assert isinstance(program, Program)
    return [tuple(arguments(node)) for node in program.nodes()]


def test_shipped_names_are_kept() -> None:
    """What clashes with nothing is called in C++ as in the spec."""
    for path in sorted((ROOT / "specs").glob("*.yaml")):
        spec = pipeline.derive(path).spec
        assert all(name == code for name, code in spec.codes.items()), path.stem


def test_a_refused_name_is_refused_where_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path, "refused", "operands:\n  ok: col\n  lambda: col\nchain:\n  - add: ok\n")
    with pytest.raises(SpecError, match=r"refused\.yaml:3: 'lambda' cannot be a name here"):
        pipeline.derive(path)
