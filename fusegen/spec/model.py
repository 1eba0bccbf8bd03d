"""The data of a spec after it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import sympy as sp

from fusegen.atoms import Partition, partitions
from fusegen.base.dtypes import DTYPES
from fusegen.ops import Op, call
from fusegen.program import Kind
from fusegen.spec.computed_size import ComputedSize

__all__ = [
    "EXPR",
    "INPUT",
    "LAUNCH_PARAMETERS",
    "NO_PART",
    "OPERATORS",
    "Argument",
    "Factor",
    "Init",
    "Operand",
    "PartsOf",
    "Ref",
    "Setting",
    "Shape",
    "Spec",
    "Step",
    "Type",
]

#: The name of the chain's input, x of `Module.forward`, in formulas and operands.
INPUT = "input"
#: The name of a part that no step uses.
NO_PART = "_"
#: The word for an inline formula in a chain.
EXPR = "expr"
#: The types of arguments.
Type = Literal["int", "float", "bool", "shape"]
#: How a parameter starts: `torch.zeros`, `torch.ones` or `torch.randn`.
Init = Literal["zeros", "ones", "randn"]
#: A shape: sizes, or names of int arguments.
Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Argument:
    """An argument of the generated Module's constructor.

    Args:
        name: its name.
        type: its type.
        default: its default, or None if it must be given.
        line: where the spec declares it.
        only: the only value that it may have, which steps take as a number; None for any.
    """

    name: str
    type: Type
    default: int | float | Shape | None
    line: int
    only: int | bool | None = None


@dataclass(frozen=True)
class Operand:
    """A tensor beside x.

    Args:
        name: its name.
        kind: the axes it varies along.
        init: how a parameter of Module starts: with a number, or with that of a float argument, if it is no
            word; None for an input of `Module.forward`.
        shape: a parameter's shape, or the shape argument that gives it; None for an input.
        line: where the spec declares it.
        integer: whether it has int64 numbers, such as the classes of the rows.
        mask: whether it is of bool, and so the condition of a choice.
        float32: whether it is of float32 where x has 16 bits.
        constant: whether it gets no gradient.
        dims: the dims along which it varies, counted from the end, if the spec lists them; its kind is then
            full.
        factor: whether torch multiplies by it; it has any shape then, and no kind.
        dotted: where the Module keeps a parameter, such as "norm.weight", if that is not the name.
        unused: whether it is a parameter of Module that no step uses.
        whole: the operand or the earlier value that it is a part of, if it is one.
    """

    name: str
    kind: Kind
    init: Init | float | Ref | None
    shape: str | Shape | None
    line: int
    integer: bool = False
    mask: bool = False
    float32: bool = False
    constant: bool = False
    dims: tuple[int, ...] | None = None
    factor: bool = False
    dotted: str = ""
    unused: bool = False
    whole: str = ""

    @property
    def place(self) -> str:
        """The name of a parameter in the Module, as `get_parameter` takes it."""
        return self.dotted or self.name

    @property
    def of_channels(self) -> bool:
        """Whether it has one number per channel."""
        return self.kind is Kind.CHANNEL


@dataclass(frozen=True)
class PartsOf:
    """An operand or an earlier value that is taken apart; each part is an operand of the steps that use it.

    Args:
        whole: its name.
        names: those of its parts, in order.
        sizes: the sizes of the parts; none if they are of one width.
        dim: the dim that they are along, counted from the end.
        label: the step that takes it apart.
        dims: the dims along which it varies, counted from the end, if the spec lists them.
    """

    whole: str
    names: tuple[str, ...]
    sizes: tuple[Setting, ...]
    dim: int
    label: str
    dims: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Factor:
    """A tensor that torch's function of a source takes.

    Args:
        name: the operand, or the earlier step.
        is_step: whether it is the value of an earlier step, or `INPUT`, the chain's input.
        transposed: whether its last two dims are swapped.
    """

    name: str
    is_step: bool = False
    transposed: bool = False


@dataclass(frozen=True)
class Ref:
    """A reference to an argument, an operand, or the value of an earlier step.

    Args:
        name: its name.
        is_argument: whether it is an argument.
        times: the factor, for a size that is a multiple of an int argument.
        is_step: whether it is the value of an earlier step, or `INPUT`, the chain's input.
    """

    name: str
    is_argument: bool
    times: int = 1
    is_step: bool = False

    def __str__(self) -> str:
        return self.name if self.times == 1 else f"{self.times} * {self.name}"


#: A value that only the constructor needs.
Setting = Ref | ComputedSize | int | bool | tuple[int | str, ...]


@dataclass(frozen=True)
class Step:
    """One step of the chain.

    Args:
        label: its name, unique in the spec; for an op with a submodule, the Module's attribute.
        op: the op, or None for an inline formula.
        formula: an inline formula, over x and real symbols called as the operands and arguments.
        text: the step as written, in one line, such as "hardtanh(min_val=-1, max_val=1)".
        operands: the value of each operand of the op (None for those in a submodule); for a formula, the
            value of each of its names, in the order of first mention.
        attributes: every attribute of the op, defaults included; a Ref is a float argument, or the int
            argument that says how many groups there are; a tuple names several dims, in order, from the end.
            A formula may have a `dim`, which its functions of a row reduce over.
        settings: what only the constructor needs: the sizes of a source and its "bias", and "features" of an
            op with a width. A size is an int or a Ref to an int argument; one of the
            source's geometry, or "features" of a norm of several dims, may also be a tuple, or a Ref to a
            shape argument. A tuple may have names of int arguments.
        line: its line in the spec.
        dims: the number of dims of its input, or 0 for any.
        float32: whether the parameters in its submodule are of float32 where x has 16 bits.
        dotted: where the Module keeps its submodule, such as "block.norm", if that is not the label.
        factors: the tensors that torch's function of a source takes, by its names for them; `of` is the value
            that it starts from, if that is not the one before it.
        parts: the names that a formula gives to the parts of its input. Later steps may use them.
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
    float32: bool = False
    dotted: str = ""
    factors: Mapping[str, Factor] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which later steps may use what it takes and computes: of its parts, and its label."""
        return (*self.parts, self.label)

    @property
    def place(self) -> str:
        """The name of its submodule in the Module, as `get_submodule` takes it."""
        return self.dotted or self.label

    @property
    def state(self) -> Mapping[str, str]:
        """The op's operands in its submodule, each with the module's attribute."""
        if self.op is None or self.op.submodule is None:
            return {}
        if self.settings.get(self.op.submodule.flag) is False:
            return {}
        return dict(zip(self.op.operands, self.op.submodule.operands, strict=False))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The declared operands that it uses."""
        refs = (r for r in self.operands.values() if isinstance(r, Ref))
        return tuple(r.name for r in refs if not (r.is_argument or r.is_step))

    @property
    def mentions(self) -> tuple[str, ...]:
        """The labels of the earlier steps whose values it uses."""
        refs = (r for r in self.operands.values() if isinstance(r, Ref))
        return tuple(dict.fromkeys(r.name for r in refs if r.is_step))

    @property
    def is_source(self) -> bool:
        """Whether torch computes it: a chain starts from it."""
        return self.op is not None and self.op.source

    @property
    def channel(self) -> int:
        """The dim of the channels of what a source gives: the last one of a product of matrices."""
        return 1 if self.op is not None and self.op.rank >= 3 else -1

    @property
    def takes_x(self) -> bool:
        """Whether its value depends on the value before it. A formula may name earlier values instead."""
        return self.formula is None or sp.Symbol("x", real=True) in self.formula.free_symbols

    @property
    def indexes(self) -> bool:
        """Whether its value is the number of a column, of int64."""
        return self.op is not None and self.op.indexes

    @property
    def by_channel(self) -> bool:
        """Whether a setting says that the parameter in the op's submodule has one number per channel."""
        named = self.op.submodule.channels if self.op and self.op.submodule else ""
        return self.settings.get(named, 1) != 1

    @property
    def of_channels(self) -> frozenset[str]:
        """The op's operands with one number per channel, as those in its submodule that no kind fixes."""
        if self.op is None:
            return frozenset()
        free = (name for name in self.state if self.by_channel or self.op.operands[name] is None)
        return self.op.of_channels.union(free)

    @property
    def split(self) -> tuple[str, ...]:
        """The op's operands that are the parts of the step's input after the first; none if the step gives
        them."""
        return () if self.op is None or {*self.op.parts} & {*self.operands} else self.op.parts

    @cached_property
    def partition(self) -> Partition | None:
        """How it cuts a row whose parts depend on one another, or which it takes in parts; None if it does
        not."""
        if self.split:
            return Partition(1 + len(self.split), bool(self.attributes["alternating"]))
        if self.formula is None and not (self.op and self.op.paired):
            return None
        return next(iter(partitions(self.expr)), None)

    @property
    def paired(self) -> bool:
        """Whether its value in one part of a row depends on another part."""
        return self.partition is not None and not self.split

    @cached_property
    def expr(self) -> sp.Expr:
        """Its formula; that of an op is over the names of the op's operands."""
        if self.op is None:
            return self.formula
        symbols = {name: sp.Symbol(name, real=True) for name in self.op.operands}
        attributes = {
            name: sp.Symbol(value.name, real=True) if isinstance(value, Ref) else value
            for name, value in self.attributes.items()
        }
        return call(self.op, sp.Symbol("x", real=True), symbols, attributes)

    @property
    def halved(self) -> int:
        """The dim of the parts that it takes, counted from the end; 0 if there are none."""
        if not self.split:
            return 0
        dim = self.attributes["dim"]
        assert isinstance(dim, int)
        return dim % self.dims - self.dims if self.dims >= 3 else -1

    @property
    def splits_channels(self) -> bool:
        """Whether the channels are split into these parts."""
        return self.halved == (1 - self.dims if self.dims >= 3 else -1)

    def operand(self, name: str) -> Ref | float | None:
        """Return the value of one of the op's operands: a Ref, a number, or None.

        An operand in the step's submodule has the chain's name for it, such as `matmul_bias`.
        """
        if self.op is None or self.op.submodule is None:
            return self.operands.get(name)
        return Ref(f"{self.label}_{self.state[name]}", False) if name in self.state else None


#: The name of the operator of each order.
OPERATORS = ("forward", "backward", "double_backward", "triple_backward")

#: The launch parameters that a spec may set; `fusegen.lower.kernel.launch` says what each is.
LAUNCH_PARAMETERS = (
    *("access", "rows_in_flight", "waves", "batches", "tiles", "threads_across", "block"),
    *("elements", "elements_narrow", "threads", "cluster", "full"),
    *("resident", "resident_narrow", "resident_outer"),
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
        codes: the names in generated C++; see `code_names`.
        dtypes: the dtypes that kernels are compiled for, in the order of `DTYPES`.
        mode: "both", or "training" if kernels are generated for training alone.
        outputs: the labels of the steps whose values the chain returns, in order, if they are several;
            otherwise empty, and it returns the last step's.
        float32: the labels of the steps whose values it returns in float32 where x has 16 bits.
        number: of one of several chains, its place among them, from 1; else 0.
        detached: of one of several chains, the outputs that get no gradient: later chains only compare or
            detach them.
        taken_apart: the operands and values of which steps take parts.
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
    dtypes: tuple[str, ...] = DTYPES
    mode: str = "both"
    outputs: tuple[str, ...] = ()
    float32: frozenset[str] = frozenset()
    number: int = 0
    detached: frozenset[str] = frozenset()
    taken_apart: tuple[PartsOf, ...] = ()

    @property
    def function(self) -> str:
        """The name of the chain's function in its package."""
        return f"apply_{self.number}" if self.number else "apply"

    @property
    def computed(self) -> frozenset[str]:
        """The names of the values that its steps compute, and of the parts that they take."""
        return frozenset(name for step in self.steps for name in step.names)

    @property
    def title(self) -> str:
        """The name of the chain: that of its spec, with its function if the spec has several chains."""
        return f"{self.name}.{self.function}" if self.number else self.name

    @property
    def unrounded(self) -> frozenset[str]:
        """The steps whose values kernels return as they compute them, also where x has 16 bits."""
        return self.float32 | {step.label for step in self.steps if step.indexes}

    @property
    def further_outputs(self) -> frozenset[str]:
        """The steps whose values it returns beside the last one's."""
        return frozenset(self.outputs) - {self.steps[-1].label}

    def code(self, name: str) -> str:
        """Return the name of an argument, operand or step in generated C++."""
        return self.codes.get(name, name)

    @property
    def splitting(self) -> Step | None:
        """The step that takes the parts of what the chain starts from, if there is one."""
        return next((step for step in self.steps if step.split), None)

    @property
    def halved(self) -> int:
        """The dim of these parts, counted from the end; 0 if there are none."""
        return self.splitting.halved if self.splitting else 0
