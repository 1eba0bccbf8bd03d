"""What a spec says, once it is read: the data that the rest of fusegen works from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import sympy as sp

from fusegen.ops import Op
from fusegen.program import Kind

__all__ = [
    "EXPR",
    "INPUT",
    "LAUNCH_PARAMETERS",
    "OPERATORS",
    "Argument",
    "Init",
    "Operand",
    "Ref",
    "Setting",
    "Shape",
    "Spec",
    "Step",
    "Type",
]

#: What formulas and operands' places call the chain's own input: x of `Module.forward`.
INPUT = "input"
#: What a chain calls an inline formula.
EXPR = "expr"
#: What an argument may be.
Type = Literal["int", "float", "shape"]
#: How a parameter starts: `torch.zeros`, `torch.ones` or `torch.randn`.
Init = Literal["zeros", "ones", "randn"]
#: A shape: sizes, or the int arguments that they are.
Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Argument:
    """An argument of the generated Module's constructor.

    Args:
        name: its name.
        type: what it takes.
        default: its default, or None if it must be given.
        line: where the spec declares it.
    """

    name: str
    type: Type
    default: int | float | Shape | None
    line: int


@dataclass(frozen=True)
class Operand:
    """A tensor beside x.

    Args:
        name: its name.
        kind: the axes it varies along.
        init: how a parameter of Module starts; None for an input of `Module.forward`.
        shape: a parameter's shape, or the shape argument that gives it; None for an input.
        line: where the spec declares it.
        integer: whether it holds int64 numbers, such as the classes of the rows.
    """

    name: str
    kind: Kind
    init: Init | None
    shape: str | Shape | None
    line: int
    integer: bool = False


@dataclass(frozen=True)
class Ref:
    """What an operand's or attribute's place points to: an argument, an operand, or an earlier step's value.

    Args:
        name: its name.
        is_argument: whether it is an argument.
        times: a size may be so many times an int argument.
        is_step: whether it is the value of an earlier step, or, as `INPUT`, what the chain starts from.
    """

    name: str
    is_argument: bool
    times: int = 1
    is_step: bool = False

    def __str__(self) -> str:
        return self.name if self.times == 1 else f"{self.times} * {self.name}"


#: What construction needs beside operands and attributes.
Setting = Ref | int | bool | tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One step of the chain.

    Args:
        label: its name, unique in the spec; for an op with a submodule, the Module's attribute.
        op: the op, or None for an inline formula.
        formula: an inline formula, over x and real symbols called as the operands and arguments.
        text: the step as written, in one line, such as "hardtanh(min_val=-1, max_val=1)".
        operands: what fills each operand of the op (none for those that live in a submodule); for a
            formula, what each of its names is, in the order of their first mention.
        attributes: every attribute of the op, defaults included; a Ref is a float argument, or the int
            argument that says how many groups there are; a tuple names several dims, in order, from the end.
            A formula may have a `dim`, which its functions of a row reduce over.
        settings: what only construction needs: the sizes of a source and its "bias", "features" of
            an op that is sized by them. A size is an int or a Ref to an int argument; one of the
            source's geometry may also be a tuple, or a Ref to a shape argument.
        line: where the spec has it.
        dims: the number of dims of what it starts from, or 0 for any.
    """

    label: str
    op: Op | None
    formula: sp.Expr | None
    text: str
    operands: Mapping[str, Ref | float]
    attributes: Mapping[str, Ref | float | int | bool | str | tuple[int, ...] | None]
    settings: Mapping[str, Setting]
    line: int
    dims: int = 0

    @property
    def state(self) -> Mapping[str, str]:
        """The op's operands that live in its submodule, each with the module's attribute."""
        if self.op is None or self.op.submodule is None:
            return {}
        if self.settings.get(self.op.submodule.flag) is False:
            return {}
        return dict(zip(self.op.operands, self.op.submodule.operands, strict=False))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The declared operands that it names."""
        refs = (r for r in self.operands.values() if isinstance(r, Ref))
        return tuple(r.name for r in refs if not (r.is_argument or r.is_step))

    @property
    def mentions(self) -> tuple[str, ...]:
        """The earlier steps whose values it uses, by their labels."""
        refs = (r for r in self.operands.values() if isinstance(r, Ref))
        return tuple(dict.fromkeys(r.name for r in refs if r.is_step))

    @property
    def by_channel(self) -> bool:
        """Whether what lives in the op's submodule holds one number a channel because a setting says so."""
        named = self.op.submodule.channels if self.op and self.op.submodule else ""
        return self.settings.get(named, 1) != 1

    @property
    def halves(self) -> str:
        """The op's operand that is the second half of the step's tensor; none where it has its own."""
        return "" if self.op is None or self.op.halves in self.operands else self.op.halves

    @property
    def halved(self) -> int:
        """The dim of these halves, counted from the end; 0 where it takes none."""
        if not self.halves:
            return 0
        dim = self.attributes["dim"]
        assert isinstance(dim, int)
        return dim % self.dims - self.dims if self.dims >= 3 else -1

    @property
    def halves_channels(self) -> bool:
        """Whether these halves are of the channels."""
        return self.halved == (1 - self.dims if self.dims >= 3 else -1)

    def operand(self, name: str) -> Ref | float | None:
        """Return what fills the place of one of the op's operands: a Ref, a number, or nothing.

        What lives in the step's submodule is called as the chain calls it, such as `matmul_bias`.
        """
        if self.op is None or self.op.submodule is None:
            return self.operands.get(name)
        return Ref(f"{self.label}_{self.state[name]}", False) if name in self.state else None


#: What the derivative of each order is called.
OPERATORS = ("forward", "backward", "double_backward", "triple_backward")

#: The launch parameters that a spec may set; `fusegen.lower.kernel.launch` says what each is.
LAUNCH_PARAMETERS = (
    *("access", "rows_in_flight", "waves", "batches", "tiles", "threads_across", "block"),
    *("elements", "threads", "cluster", "resident", "resident_narrow", "resident_outer", "full"),
)


@dataclass(frozen=True)
class Spec:
    """One spec.

    Args:
        name: the generated package's name.
        path: the file it came from, if from a file.
        text: the whole text.
        description: one line, or nothing.
        arguments: the constructor's arguments, in order.
        operands: the declared operands, in order.
        steps: the chain.
        dims: the number of dims of the activation, or 0 for any.
        order: how many derivatives are generated.
        launch: launch parameters of the GPU's kernels that the spec sets, by operator and name.
        codes: what its names are called in generated C++, where they are; see `code_names`.
    """

    name: str
    path: Path | None
    text: str
    description: str
    arguments: tuple[Argument, ...]
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    dims: int
    order: int
    launch: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)

    def code(self, name: str) -> str:
        """Return what an argument, operand, or step is called in generated C++."""
        return self.codes.get(name, name)

    @property
    def halving(self) -> Step | None:
        """The step that takes the two halves of x or of the product after it, if there is one."""
        return next((step for step in self.steps if step.halves), None)

    @property
    def halved(self) -> int:
        """The dim of these halves, counted from the end; 0 where there are none."""
        return self.halving.halved if self.halving else 0
