"""Launch parameters: each has a meaning, the spec's and the tuned ones reach the generated code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sympy as sp
from conftest import ROOT
from shared.small_programs import W, X, program_of

from fusegen.atoms import tanh
from fusegen.base.errors import UserError
from fusegen.chain import derive
from fusegen.lower import lower
from fusegen.lower.kernel.gpu_form import GpuForm
from fusegen.lower.kernel.launch import MEANINGS, choose_launch
from fusegen.ops import call, find
from fusegen.program import Reduce
from fusegen.program.calculus import vjp
from fusegen.spec import parse
from fusegen.spec.model import LAUNCH_PARAMETERS
from fusegen.toolchain import pipeline, tuned
from fusegen.tools.tune import CANDIDATES

SPEC = """\
arguments: {n: int}
chain:
  - linear: {in_features: n, out_features: n}
  - tanh
  - mul: {other: 2.0}
"""


def names(formula: sp.Expr, *, apart: bool = False) -> set[str]:
    program = program_of(formula)
    both = (lower(program, apart=apart), lower(vjp(program, "backward"), apart=apart))
    return {name for kernel in both for name in choose_launch(kernel).names}


def test_every_parameter_has_a_meaning_and_some_kernel_has_it() -> None:
    assert set(LAUNCH_PARAMETERS) == set(MEANINGS)
    assert set(CANDIDATES) <= set(MEANINGS)
    softmax = call(find("softmax"), X + W, {}, {})
    used = names(tanh(X)) | names(tanh(X + W)) | names(softmax) | names(softmax, apart=True)
    assert used == set(MEANINGS)


def test_what_is_wanted_beats_the_model() -> None:
    kernel = lower(program_of(tanh(X + W)))
    chosen = choose_launch(kernel)
    wanted = choose_launch(kernel, {"block": 2 * chosen.block, "elements": 4})
    assert wanted.block == 2 * chosen.block
    assert "elements" not in {name for name, _, _ in wanted.constants}


def derived_code(path: Path) -> str:
    return pipeline.render_package(path).files["kernel.cu"]


def test_a_tuned_file_is_read_and_the_spec_beats_it(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    plain = derived_code(path)
    assert "block = 1024" not in plain
    tuned.write(path, {"forward": {"block": 1024}}, {"chip": "a test"})
    assert json.loads(tuned.path_of(path).read_text())["measured"] == {"chip": "a test"}
    assert "block = 1024" in derived_code(path)
    path.write_text(SPEC + "launch: {forward: {block: 128}}\n")
    assert "block = 128" in derived_code(path)
    assert "block = 1024" not in derived_code(path)


def test_a_broken_tuned_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    tuned.path_of(path).write_text("{}")
    with pytest.raises(UserError, match=r"small\.tuned\.json is not what `fusegen tune` writes"):
        pipeline.render_package(path)


def waves(name: str, *, backward: bool = False) -> int:
    program = program_of(call(find(name), X, {}, {}))
    saved = [v for v in program.nodes() if isinstance(v, Reduce)]
    kernel = lower(vjp(program, "backward"), given=saved) if backward else lower(program)
    return choose_launch(kernel).waves


def test_a_block_takes_one_row_where_little_is_computed_and_held() -> None:
    one_row = 1024
    assert [waves(name) for name in ("layer_norm", "softmax", "log_softmax")] == 3 * [one_row]
    assert waves("log_softmax", backward=True) == one_row
    assert waves("softmax", backward=True) < one_row  # two tensors, and the exponential is kept


def test_a_warp_takes_one_row_whatever_is_computed_unless_it_sums_columns() -> None:
    mish = program_of(call(find("softmax"), call(find("mish"), X, {}, {}), {}, {}))
    assert choose_launch(lower(mish)).waves < 1024
    assert GpuForm(lower(mish)).rows_apart
    assert GpuForm(lower(vjp(mish, "backward"))).rows_apart
    norm = call(find("layer_norm"), X, {"weight": W}, {})
    assert not GpuForm(lower(vjp(program_of(norm), "backward"))).rows_apart


def test_groups_that_lie_between_one_another_have_loops() -> None:
    """Groups of channels of channels-last: without loops of their own x would be copied."""
    groups = (
        "dims: 4\narguments: {features: int}\norder: 1\nchain:\n  - group_norm: {num_groups: 2}\n"
    )
    (mode,) = derive(parse(groups, "groups")).modes
    assert all(kernel.interleaved for kernel in mode.kernels)


def test_what_is_live_between_stages() -> None:
    """mish(x) until its largest value is known, and its exponential until their sum is; x no longer."""
    mish = program_of(call(find("softmax"), call(find("mish"), X, {}, {}), {}, {}))
    assert lower(mish).live.between == ((1, 0), (0, 1), (0, 1))


def test_a_block_walks_where_its_next_row_is_served_by_what_it_has() -> None:
    """It sums columns, or has read them."""
    norm = call(find("layer_norm"), X, {"weight": W}, {})
    assert choose_launch(lower(vjp(program_of(norm), "backward"))).waves < 1024
    modes = pipeline.derive(ROOT / "specs" / "gemm_batchnorm_scale_softmax.yaml").modes
    holding = [k for mode in modes for k in mode.kernels if GpuForm(k).live_columns]
    assert holding
    assert all(choose_launch(kernel).waves < 1024 for kernel in holding)
