"""The list of passes: what each leaves is whole, and a pass that breaks a program is found at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import NAMES, ROOT, python
from shared.small_programs import X, program_of, program_of_steps

from fusegen.atoms import HALVES, exp, row_mean, row_sum, tanh
from fusegen.base.errors import UserError
from fusegen.chain import Chain
from fusegen.lower.part import Part, Parts
from fusegen.lower.passes import PASSES, passed
from fusegen.lower.show_passes import changes, programs_after
from fusegen.lower.verify_parts import VerificationError, verify
from fusegen.program import Kind, Map, Output, Program, Reduce
from fusegen.program.builder import Builder
from fusegen.program.rebuild import rebuilt
from fusegen.tools.check.reference_program import Axes, run_program


def test_each_pass_has_a_file_and_a_line_of_its_own() -> None:
    names = [each.__name__ for each in PASSES]
    files = {path.stem for path in (ROOT / "fusegen" / "lower" / "passes").glob("[a-z]*.py")}
    assert sorted(names) == sorted(files)
    assert len({each.__doc__ for each in PASSES} - {None}) == len(PASSES)


def softmax() -> Program:
    return program_of_steps(exp(X) / row_sum(exp(X)), tanh(X) - row_mean(tanh(X)))


def lose_an_output(part: Part) -> Parts:
    return (replace(part, program=replace(part.program, outputs={})),)


def widen_a_value(part: Part) -> Parts:
    """Say of a sum over the row that it varies along the row."""
    (total, *_) = (v for v in part.program.nodes() if isinstance(v, Reduce))
    return part.having(rebuilt(part.program, {total: replace(total, kind=Kind.FULL)}, ()))


def forget_an_input(part: Part) -> Parts:
    return part.having(replace(part.program, inputs=()))


def name_two_alike(part: Part) -> Parts:
    (total, other, *_) = (v for v in part.program.nodes() if isinstance(v, Reduce))
    return part.having(rebuilt(part.program, {}, (), {other: total.name}))


def move_what_is_fixed(part: Part) -> Parts:
    """Compute a value of which the bits are promised in another way."""
    value = next(v for v in part.program.nodes() if isinstance(v, Map) and v.name in part.fixed)
    changed = replace(value, expr=2 * value.expr)
    return part.having(rebuilt(part.program, {value: changed}, ()))


def load_what_nobody_leaves(part: Part) -> Parts:
    (total, *_) = (v for v in part.program.nodes() if isinstance(v, Reduce))
    return (replace(part, given=(total,)),)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lose_an_output, "other outputs"),
        (widen_a_value, "reduces full to full"),
        (forget_an_input, "x is no input"),
        (name_two_alike, "two values have the name"),
        (move_what_is_fixed, "other fixed values"),
        (load_what_nobody_leaves, "which no part leaves before it"),
    ],
)
def test_a_broken_pass_is_found(broken: Callable[[Part], Parts], said: str) -> None:
    program = softmax()
    first = next(v for v in program.nodes() if isinstance(v, Map))
    part = Part(program, (), frozenset({first.name}))
    verify("whole", (part,), (part,))
    with pytest.raises(VerificationError, match=said):
        verify("broken", (part,), broken(part))


def test_a_tensor_of_which_a_part_is_not_written_is_found() -> None:
    builder = Builder()
    first, second = builder.parts("x", Kind.FULL, HALVES)
    whole = Program(
        "f", tuple(builder.inputs), {"y": Output(second, first), "y_half": Output(first, second)}
    )
    verify("whole", (Part(whole),), (Part(whole),))
    half = Part(replace(whole, outputs={"y": Output(second, first)}))
    with pytest.raises(VerificationError, match=r"nothing writes the parts.*y_half"):
        verify("broken", (half,), (half,))


@pytest.mark.parametrize("name", NAMES)
def test_no_pass_changes_what_is_computed(name: str, derived: Callable[[str], Chain]) -> None:
    """The programs before and after each pass agree in float64, up to the order of additions."""
    for program, given in derived(name).operators:
        wanted = values_of(program)
        for each, parts in passed(Part(program, given)):
            found = {n: v for part in parts for n, v in values_of(part.program).items()}
            assert found.keys() == wanted.keys()
            scale = max(value.abs().max().item() for value in wanted.values())
            for output, value in found.items():
                torch.testing.assert_close(
                    value,
                    wanted[output],
                    rtol=1e-12,
                    atol=1e-12 * scale,
                    msg=f"{program.name} after {each.__name__}: {output}",
                )


def values_of(program: Program) -> dict[str, torch.Tensor]:
    """Return what a program's kernels compute, all of it, at random tensors."""
    generator = torch.Generator().manual_seed(0)
    axes = Axes((33, 7))
    given = [i for i in program.inputs if i.source in ("tensor", "attribute")]
    tensors = {
        i.name: torch.rand(axes.of(i.kind), generator=generator, dtype=torch.float64) + 0.5
        for i in given
    }
    found = run_program(program, tensors, 7, axes)
    return {name: value for name, value in found.items() if name not in program.shared}


def test_show_says_what_each_pass_did(derived: Callable[[str], Chain]) -> None:
    chain = derived("gemm_batchnorm_scale_softmax")
    said = {program.name: dict(changes(program, given)) for program, given in chain.operators}
    assert [*said["backward_train"]] == [each.__name__ for each in PASSES]
    assert "cut into backward_train_sums, backward_train" in said["backward_train"]["cut_at_sums"]
    assert "grad_bn_bias_sum" in said["backward_train"]["share_sums"]
    assert said["forward_eval"]["share_sums"] == "nothing"


def test_show_refuses_a_pass_that_is_none() -> None:
    with pytest.raises(UserError, match=re.escape("no pass 'regroup'; did you mean 'regroup_pr")):
        programs_after(program_of(X), (), "regroup")


def test_the_command_shows_passes() -> None:
    shown = python(
        "from fusegen.tools.cli import main; import sys;"
        "sys.argv = ['fusegen', 'show', 'matmul_gelu_softmax', '--after', 'regroup_products']; main()"
    )
    assert "d_gelu_softmax_exp: full = d_gelu*softmax_exp" in shown.stdout, shown.stderr
