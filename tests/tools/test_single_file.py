"""`fusegen export --single-file`: one file that needs torch and a compiler alone."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT
from shared.command import fusegen_here
from torch import Tensor

from fusegen.base.errors import UserError
from fusegen.chain import derive, derive_all
from fusegen.spec import parse
from fusegen.tools.single_file import single_file
from fusegen.tools.single_file.cpp_parts import cpp_parts, shared_sources
from fusegen.tools.single_file.example_shapes import CHANNELS, Sizes, shapes_of
from fusegen.tools.single_file.example_sizes import Example, example_of, known_sizes
from fusegen.tools.single_file.python_parts import python_parts

#: Running averages, a parameter, an input beside x, outputs with and without a gradient, and a derivative of
#: the second order.
SPEC = """
description: A linear layer, batch norm, a gate and a residual.
arguments: {in_features: int, out_features: int, factor: {type: float, default: 0.5}}
operands:
  scale: {kind: col, init: randn, shape: [out_features]}
  residual: full
outputs: [gated, last, best]
dtypes: [float32]
chain:
  - linear
  - batch_norm: {name: bn}
  - expr: {name: gated, formula: "x * sigmoid(factor * x) * scale"}
  - add: residual
  - softmax: {name: last}
  - argmax: {name: best, dim: -1}
"""

#: Run by a Python that has not imported fusegen: values, gradients, second derivatives and averages.
RUN = """
import sys, torch, single
device, place = sys.argv[1:]
torch.manual_seed(0)
x, residual = (torch.randn(33, 65, device=device) for _ in range(2))
found = {}
for kind in (single.Model, single.ModelNew):
    torch.manual_seed(1)
    for dtype in (torch.float64, torch.float32):
        if kind is single.ModelNew and dtype is torch.float64:
            continue
        torch.manual_seed(1)
        model = kind(65, 65).to(device).to(dtype).train()
        given = [t.to(dtype, copy=True).requires_grad_() for t in (x, residual)]
        leaves = [*given, *model.parameters()]
        outs = model(*given)
        loss = sum((o * o.detach().cos()).sum() for o in outs if o.requires_grad)
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad(sum((g * g.detach().sin()).sum() for g in first), leaves[:2])
        evaluated = model.eval()(*given)
        tensors = [*outs, *first, *second, *evaluated, *model.buffers()]
        found[kind.__name__, str(dtype)] = [t.detach().cpu() for t in tensors]
assert not [name for name in sys.modules if name.split(".")[0] == "fusegen"]
try:
    ones = torch.ones(65, device=device)
    single.apply(x, ones, residual[:, :3], *[ones] * 5)
except ValueError as error:
    found["refused"] = str(error)
torch.save(found, place)
"""


def loaded(text: str, folder: Path) -> ModuleType:
    """Import a file as it is; nothing is compiled."""
    path = folder / "single.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("single", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)  # not in sys.modules, as some graders load it
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "gate.yaml"
    path.write_text(SPEC)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_it_runs_without_fusegen_and_is_as_exact_as_torch(
    device: str, spec: Path, tmp_path: Path
) -> None:
    (tmp_path / "single.py").write_text(single_file(spec, ("float32",), {}))
    (tmp_path / "run.py").write_text(RUN)
    hidden = {"PYTHONPATH": str(tmp_path), "TORCH_EXTENSIONS_DIR": str(tmp_path / "built")}
    done = subprocess.run(
        [sys.executable, "run.py", device, "found.pt"],
        cwd=tmp_path,
        env={**os.environ, **hidden},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "found.pt")
    assert "these do not fit together" in found["refused"]
    truth, eager = (found["Model", f"torch.float{bits}"] for bits in (64, 32))
    own = found["ModelNew", "torch.float32"]
    assert len(truth) == len(eager) == len(own)
    for exact, other, value in zip(truth, eager, own, strict=True):
        exact = exact.double()  # a number of batches is no float
        errors = [float((v.double() - exact).norm()) for v in (value, other)]
        # A bias before a batch norm has a gradient of 0 but for rounding.
        assert errors[0] <= 4 * errors[1] + 2e-7 * max(float(exact.norm()), 1.0)


SPECS = sorted(path.stem for path in (ROOT / "specs").glob("matmul_*.yaml"))
CHAINS = ["conv2d_glu_group_norm", "bmm_bias_softmax", "linear_mean_gate_input"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SPECS[:2], *CHAINS])
def test_its_models_fit_their_examples(name: str, tmp_path: Path) -> None:
    (path,) = (*ROOT.glob(f"specs/{name}.yaml"), *ROOT.glob(f"tests/*/{name}.yaml"))
    text = single_file(path, ("float32", "bfloat16"), {"rows": 8})
    single = loaded(text, tmp_path)
    models = [kind(*single.get_init_inputs()) for kind in (single.Model, single.ModelNew)]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    inputs = single.get_inputs()
    assert inputs[0].shape[0] == 8
    out = models[0](*inputs)
    assert isinstance(out, Tensor)
    assert "import fusegen" not in text and "from fusegen" not in text
    assert text.count("_SOURCES[") == text.count("#pragma once") + len(single._SOURCES) + 1
    calls = re.findall(r"(?:run_form|scratch_of)<([^(]*)>\(", single._ENTRY_POINTS)
    assert calls and all(call.endswith("FUSEGEN_STORED") for call in calls)
    code = "\n".join(single._SOURCES.values())
    assert set(re.findall(r'^#include "(.+)"', code, re.MULTILINE)) <= single._SOURCES.keys()
    for unit in (("kernel.cpp", "binding.cpp", *single._SHARED), ("kernel.cu",)):
        whole = single._unit(*unit)
        assert not re.search(r'^#include "', whole, re.MULTILINE)
        assert whole.count("template <class Math>\nstruct Forward") >= 1


def test_arguments_that_are_shapes_fit_the_example(tmp_path: Path) -> None:
    path = tmp_path / "shapes.yaml"
    path.write_text(
        "arguments: {in_channels: int, out_channels: int, kernel: shape, pad: int, row: shape}\nchain:\n"
        "  - conv2d: {kernel_size: kernel, padding: [0, pad]}\n"
        "  - layer_norm: {elementwise_affine: true, features: row, dim: [2, 3]}\n"
    )
    text = single_file(path, ("float32",), {"pad": 2, "rows": 2, "out_channels": 3})
    single = loaded(text, tmp_path)
    given = single.get_init_inputs()
    assert given == [64, 3, (3, 3), 2, (30, 34)]
    assert single.Model(*given)(*single.get_inputs()).shape == (2, 3, 30, 34)


def test_inputs_that_get_no_gradient_are_asked_for_none(tmp_path: Path) -> None:
    path = tmp_path / "kept.yaml"
    path.write_text(
        "operands: {w: full, kept: {kind: full, gradient: false}}\nchain: [{mul: w}, {mul: kept}]"
    )
    text = single_file(path, ("float32",), {})
    assert re.findall(r"given\[(\d)\].requires_grad_\(False\)", text) == ["2"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_its_cuda_sources_compile_for_each_dtype(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.nvcc_front_end import UNOPTIMIZED

    path = tmp_path / "plain.yaml"
    path.write_text("order: 1\nchain: [swish]\n")
    single = loaded(single_file(path, ("float32", "bfloat16"), {}), tmp_path)
    given: dict[str, Any] = {}
    monkeypatch.setattr(torch.utils.cpp_extension, "load_inline", lambda _, **o: given.update(o))
    operators = single._compiled("cuda")
    assert "x" in str(operators.forward.default._schema)  # declared by Python
    (tmp_path / "cuda.cu").write_text("".join(given["cuda_sources"]))
    flags = [flag for flag in given["extra_cuda_cflags"] if flag != "-O3"]
    command = ["nvcc", *UNOPTIMIZED, *flags, "-arch=sm_90", "-c", "cuda.cu", "-o", "cuda.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    names = subprocess.run(
        ["nm", "-C", "cuda.o"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    for stored in ("float", "fusegen::bfloat16"):
        assert f"forward_cuda<{stored}>" in names.stdout


def test_each_header_is_there_once_and_after_what_it_includes() -> None:
    given = {
        "a.cpp": '#include "b.h"\n#include "c.h"\nint a;\n',
        "b.h": '#pragma once\n#include <cmath>\n#include "c.h"\nint b;\n',
        "c.h": "#pragma once\nint c;\n",
    }
    parts = cpp_parts(given, ["a.cpp"])
    assert list(parts) == ["c.h", "b.h", "a.cpp"]
    assert parts["b.h"] == '#include <cmath>\n#include "c.h"\nint b;\n'
    given["b.h"] = '#pragma once\n#if defined(X)\n#include "c.h"\n#endif\n'
    with pytest.raises(ValueError, match=r"b.h includes c.h within a condition"):
        cpp_parts(given, ["a.cpp"])
    root = ROOT / "templates" / "include"
    everything = [p.relative_to(root).as_posix() for p in root.rglob("*.*")]
    assert cpp_parts({}, everything).keys() == set(everything)
    assert set(shared_sources()) == {n for n in everything if n.endswith(".cpp")}


def test_python_is_copied_in_an_order_in_which_it_runs() -> None:
    parts = python_parts([("fusegen.runtime", "Average"), ("fusegen.runtime.explain", "fits")])
    text = "\n\n".join([*parts.imports, *parts.texts.values()])
    assert "fusegen" not in text
    assert "type: ignore" not in text
    names: dict[str, Any] = {"__name__": "nowhere"}
    exec(f"from __future__ import annotations\n{text}", names)  # noqa: S102
    assert next(iter(parts.texts)) == "Average"
    operand = names["half_shape"]
    assert operand((4, 6), -1) == (4, 3)
    assert names["fits"](torch.ones(3), [], [], names["Activation"]())
    defined = [
        n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.ClassDef)
    ]
    assert len({n.name for n in defined}) <= len(defined)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --single-file"),
        (("--single-file", "--dtypes", "flot32"), "did you mean 'float32'"),
        (
            ("--single-file", "--dtypes", "float64"),
            "--dtypes float64: .*gate.yaml has dtypes float32",
        ),
        (("--single-file", "--sizes", "in_feature=3"), "did you mean 'in_features'"),
        (("--single-file", "--sizes", "rows=x"), "write a name and a number"),
        (("--single-file", "--out", "mine.py"), "mine.py is there, and not from this command"),
    ],
)
def test_a_mistake_is_one_message(arguments: tuple[str, ...], message: str, spec: Path) -> None:
    (spec.parent / "mine.py").write_text("mine = 1\n")
    done = fusegen_here("export", spec.name, *arguments, cwd=spec.parent)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr
    assert (spec.parent / "mine.py").read_text() == "mine = 1\n"


def test_the_command_writes_a_file_that_it_may_replace(spec: Path) -> None:
    command = ("export", "gate.yaml", "--single-file", "--sizes", "in_features=12,rows=3")
    for _ in range(2):
        done = fusegen_here(*command, cwd=spec.parent)
        assert done.returncode == 0, done.stderr
    assert "python gate.py" in done.stdout
    text = (spec.parent / "gate.py").read_text()
    assert "return [12, 256]" in text and "torch.randn([3, 12])" in text
    with pytest.raises(UserError, match="has no such size"):
        single_file(spec, ("float32",), {"factor": 3})


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("dims: 3\nchain: [glu: {dim: 1}, batch_norm: {features: 8}]", [16, 16, 32]),
        (
            "dims: 4\nchain: [expr: {formula: a * b + c, parts: [a, b, c], dim: 1}]",
            [16, 66, 32, 32],
        ),
        ("dims: 3\nchain: [expr: {formula: a * b + c, parts: [a, b, c], dim: 2}]", [16, 64, 96]),
        ("chain: [add: w, expr: {formula: a * b + c * d, parts: [a, b, c, d]}]", [16, 8]),
        ("chain: [expr: {formula: a * b + c * d, parts: [a, b, c, d]}, add: w]", [16, 32]),
    ],
)
def test_an_example_has_all_parts(text: str, shape: list[int]) -> None:
    """What is in the spec is as wide as x before its parts are taken, and as wide as one after it."""
    declared = "operands: {w: {kind: col, init: ones, shape: [8]}}\n" if "add: w" in text else ""
    derived = derive(parse(f"{declared}{text}\n", "example"))
    channels = CHANNELS[derived.layout.rank >= 3]
    assert shapes_of(derived, {}, Sizes(16, channels, 32))[0] == shape


def _example(text: str, sizes: dict[str, int]) -> Example:
    chains = derive_all(parse(text, "example"))
    return example_of(chains, sizes, *known_sizes(chains, sizes))


def test_an_example_has_the_columns_of_a_linear_layer() -> None:
    """A linear layer takes the last dim of x, however many dims x has, and an operand has those it lists."""
    alone = """
arguments: {width: {type: int, default: 48}}
dims: 3
chain: [linear: {out_features: 8, in_features: width}, gelu]
"""
    found = _example(alone, {"rows": 2, "image": 5})
    assert found.inputs == ["torch.randn([2, 64, 48])"]
    text = """
dims: 3
operands: {c: {dims: [0, 2]}}
chain:
  - layer_norm: {name: normed, eps: 1e-6}
  - linear: {name: ada, of: c, in_features: 6, out_features: 64}
  - expr: {formula: "normed * (1 + a) + b", parts: [a, b], of: ada}
"""
    found = _example(text, {"rows": 2, "image": 32})
    assert found.inputs == ["torch.randn([2, 64, 32])", "torch.randn([2, 1, 6])"]


def test_no_helper_has_the_name_of_another_definition() -> None:
    """What a file may need beside its chains; `widened`, of operands of float32, was there twice."""
    needed = [("fusegen.runtime.alone", name) for name in ("Activation", "Chain", "Operator")]
    for module in ("steps", "memory_format", "conversion", "rearranged", "averages", "submodules"):
        found = vars(importlib.import_module(f"fusegen.runtime.{module}")).items()
        own = [n for n, f in found if getattr(f, "__module__", "") == f"fusegen.runtime.{module}"]
        needed += [(f"fusegen.runtime.{module}", name) for name in own]
    assert "widened_values" in python_parts(needed).texts
