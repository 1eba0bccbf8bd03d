"""What a report says of one chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from fusegen import render
from fusegen.base.errors import UserError
from fusegen.chain import Chain, Mode
from fusegen.lower.passes import PASSES
from fusegen.lower.show_passes import changes
from fusegen.program import Value
from fusegen.spec.model import OPERATORS
from fusegen.toolchain import pipeline, tuned
from fusegen.tools.report import pictures
from fusegen.tools.report.approximations import Approximation, approximations
from fusegen.tools.report.errors import (
    ErrorRow,
    EveryNumber,
    NotMeasured,
    errors_at_every_number,
    errors_of_a_call,
)
from fusegen.tools.report.kernels import KernelFacts, kernels_of
from fusegen.tools.report.one_variable import numbers_of, why_not
from fusegen.tools.report.sources import highlighted
from fusegen.tools.typeset import Equation, aligned, equations, legend

__all__ = ["Chapter", "chapters_of"]

#: The files of a package that a report shows: all the mathematics, and the GPU's kernels.
_SHOWN = ("element.h", "kernel.cu")
_NOTHING = "nothing"


@dataclass(frozen=True)
class StepRow:
    """A step of the chain.

    Args:
        label: its label.
        text: the step as the spec has it.
        about: what its op is.
        kind, shape: those of its value, if kernels compute it.
        equation: its formula.
    """

    label: str
    text: str
    about: str
    kind: str
    shape: str
    equation: Markup


@dataclass(frozen=True)
class OperatorPart:
    """An operator: its program as equations, and what the passes did to it.

    Args:
        name: its name.
        inputs: its inputs, each with its name as it is typeset and its kind.
        equations: what it computes.
        outputs: its outputs, each with the value that it is.
        saved: what the forward pass saves for derivatives.
        notes: what was left out.
        passes: each pass that changed something, and what.
        idle: the passes that changed nothing.
    """

    name: str
    inputs: Sequence[tuple[str, Markup, str]]
    equations: Sequence[Equation]
    outputs: Sequence[tuple[Markup, Markup, str]]
    saved: Sequence[Markup]
    notes: Sequence[str]
    passes: Sequence[tuple[str, str]]
    idle: Sequence[str]

    @property
    def tex(self) -> str:
        """The equations as LaTeX."""
        return aligned(self.equations)


@dataclass(frozen=True)
class Chapter:
    """A chain in a report.

    Args:
        chain: the chain.
        steps: its steps.
        operators: its operators.
        curves: its picture as a function of one variable.
        no_curves: why there is none.
        every_number: a picture of the errors at all numbers for the value and the derivative.
        call: the errors of a random call.
        no_errors: why no errors were measured.
        approximations: the polynomials in its kernels.
        kernels: its kernels.
        spec: its spec.
        sources: generated files by name.
    """

    chain: Chain
    steps: Sequence[StepRow]
    operators: Sequence[OperatorPart]
    curves: Markup
    no_curves: str
    every_number: Sequence[tuple[EveryNumber, Markup]]
    call: Sequence[ErrorRow]
    no_errors: str
    approximations: Sequence[Approximation]
    kernels: Sequence[KernelFacts]
    spec: Markup
    sources: Sequence[tuple[str, int, Markup]]

    @property
    def name(self) -> str:
        """The name of the package, and of the chain if there are several."""
        return self.chain.spec.title

    @property
    def runs(self) -> str:
        """How many kernels each operator runs, in training where that differs."""
        counts: dict[str, int] = {}
        for segment in self.chain.segments:
            for operator, kernel in zip(OPERATORS, segment.modes[0].kernels, strict=False):
                counts[operator] = counts.get(operator, 0) + len(kernel.parts)
        return ", ".join(f"{operator} {count}" for operator, count in counts.items())

    @property
    def unchanged(self) -> list[str]:
        """The operators in which no pass had anything to do."""
        return [operator.name for operator in self.operators if not operator.passes]

    @property
    def passes(self) -> list[str]:
        """The names of all passes, in order."""
        return [each.__name__ for each in PASSES]

    @property
    def numbers(self) -> str:
        """The float arguments with which the curves are drawn."""
        return ", ".join(f"{name} = {value:g}" for name, value in numbers_of(self.chain).items())


def chapters_of(path: Path, out: Path) -> list[Chapter]:
    """Return what a report says of each chain of a spec.

    Args:
        path: the spec file.
        out: the folder of the built packages.

    Raises:
        SpecError: where the spec is wrong.
    """
    launch = tuned.read(path)
    return [_chapter(chain, launch, out) for chain in pipeline.derive_all(path).fused]


def _chapter(chain: Chain, launch: Mapping[str, Mapping[str, int]], out: Path) -> Chapter:
    files = render.render(chain, launch)
    why = why_not(chain)
    curves, no_curves = (Markup(), why) if why else _picture(lambda: pictures.curves(chain))
    every_number: list[tuple[EveryNumber, Markup]] = []
    call: list[ErrorRow] = []
    no_errors = ""
    try:
        if why:
            call = errors_of_a_call(chain, out)
        else:
            every_number = [_pictured(m, chain) for m in errors_at_every_number(chain, out)]
    except NotMeasured as error:
        no_errors = str(error)
    return Chapter(
        chain=chain,
        steps=_steps(chain),
        operators=[part for mode in chain.modes for part in _operators(mode)],
        curves=curves,
        no_curves=no_curves,
        every_number=every_number,
        call=call,
        no_errors=no_errors,
        approximations=approximations(chain, files["element.h"]),
        kernels=kernels_of(chain, launch),
        spec=highlighted(chain.spec.text, "spec.yaml"),
        sources=[(n, files[n].count("\n"), highlighted(files[n], n)) for n in _SHOWN],
    )


def _trusted(text: str) -> Markup:
    """Return markup that was made here, with its texts escaped."""
    return Markup(text)


def _picture(draw: Callable[[], str]) -> tuple[Markup, str]:
    """Return a picture, or none and the reason: matplotlib is not there."""
    try:
        return _trusted(draw()), ""
    except UserError as error:
        return Markup(), str(error)


def _pictured(measured: EveryNumber, chain: Chain) -> tuple[EveryNumber, Markup]:
    """Return errors with their picture."""
    name = f"{chain.spec.title}-errors-of-the-{measured.name}"
    return measured, _picture(lambda: pictures.errors(measured, name))[0]


def _steps(chain: Chain) -> list[StepRow]:
    """Return the steps of a chain, each with the value that it has in training."""
    rows = []
    for segment in chain.segments:
        program = segment.modes[0].programs[0]
        (found,) = equations([program])
        by_name = {equation.name: equation for equation in found}
        for step in segment.steps:
            value: Value | None = None
            if step is segment.steps[-1]:
                value = program.outputs["y"].value
            own = by_name.get(value.name if value else chain.spec.code(step.label))
            rows.append(
                StepRow(
                    step.label,
                    step.text,
                    step.op.summary if step.op else "",
                    own.kind if own else "",
                    own.shape if own else "",
                    _trusted(own.mathml if own else ""),
                )
            )
    return rows


def _operators(mode: Mode) -> list[OperatorPart]:
    """Return the operators of a segment in one mode."""
    parts = []
    for order, (program, found) in enumerate(
        zip(mode.programs, equations(mode.programs), strict=True)
    ):
        done = changes(program, mode.saved if order else ())
        values = [o.value.name for o in program.outputs.values()]
        named = legend(
            mode.programs,
            [*(i.name for i in program.inputs), *program.outputs, *values]
            + [v.name for v in program.saved],
        )
        parts.append(
            OperatorPart(
                program.name,
                [(i.name, _trusted(named[i.name]), i.access.kind.label) for i in program.inputs],
                found,
                [
                    (
                        _trusted(named[name]),
                        _trusted(named[o.value.name]),
                        o.access(name).kind.label,
                    )
                    for name, o in program.outputs.items()
                ],
                [_trusted(named[v.name]) for v in program.saved],
                program.notes,
                [(name, what) for name, what in done if what != _NOTHING],
                [name for name, what in done if what == _NOTHING],
            )
        )
    return parts
