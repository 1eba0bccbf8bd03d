"""What an op is: its formula, what a spec may give it, its torch function, and the module it keeps."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import sympy as sp

from fusegen.program import Kind

__all__ = ["REFUSED", "Attribute", "EvalMode", "Op", "Over", "Range", "Submodule"]

#: The types of attributes.
Attribute = float | int | bool | str
#: An op in evaluation: the same formula, or the identity.
EvalMode = Literal["same", "identity"]
#: The dims that an op reduces over if no attribute names them: the last, those after the channel, or the
#: channel, which is dropped.
Over = Literal["last", "inner", "channel"]

#: Parameters of torch's functions that no op takes, each with what to do instead.
REFUSED = {
    "inplace": "a kernel writes a new tensor; leave it out",
    "out": "a kernel writes a new tensor; leave it out",
    "dtype": "the result has the dtype of x; cast x, the result or the Module",
    "out_dtype": "the result has the dtype of x; cast x, the result or the Module",
    "device": "a Module is moved with `.to(device)`",
    "size_average": "torch has deprecated it; give reduction",
    "reduce": "torch has deprecated it; give reduction",
    "training": "it is Module's mode, or `apply(..., training=True)`",
}


#: Functions of torch that take tensors alone in their operands' places.
_OF_TENSORS = ("minimum", "maximum", "lerp", "addcmul", "logaddexp", "hypot", "atan2")


@dataclass(frozen=True)
class Submodule:
    """The `torch.nn` module with an op's parameters and buffers.

    Args:
        module: its name in torch, such as "nn.BatchNorm1d".
        sized_by: its leading constructor parameters: attributes of the op, or sizes known from the chain,
            "in_features", "out_features" or "features" (the width of the activation there).
        keywords: the op's attributes that its constructor takes.
        geometry: further constructor parameters with their defaults: a size, or one per dim. A source's
            function takes those whose names are attributes of the module.
        operands: the module's attribute for each operand of the op, in the op's order.
        buffers: those operands that are buffers and get no gradient.
        flag: the constructor parameter that switches the operands on, if the constructor has one. Without the
            operands the formula uses its parameters' defaults.
        flagged: the flag's default.
        channels: the constructor parameter with the number of elements of the operands: one per channel,
            unless it is 1.
        row_shape: the module's attribute with the sizes of a row's dims, if its "features" are these and not
            the number of channels.
        fixed: attributes of the module, beside the keywords, that must have this value if the kernels replace
            the module.

    `module` may contain `{n}`, the number of the activation's dims after the channel.
    """

    module: str
    sized_by: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    geometry: Mapping[str, int] = field(default_factory=dict)
    operands: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
    flag: str = ""
    flagged: bool = True
    channels: str = ""
    row_shape: str = ""
    fixed: Mapping[str, str | bool | None] = field(default_factory=dict)

    def module_for(self, dims: int) -> str:
        """Return the module's name for an activation with `dims` dims, or any number (0)."""
        return self.module.format(n=max(dims - 2, 1))


@dataclass(frozen=True)
class Range:
    """The numbers that torch takes for an attribute; `above` excludes the least one."""

    least: float
    most: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.least if self.above else value >= self.least) and value <= self.most

    def __str__(self) -> str:
        if self.above:
            return f"a number above {self.least:g}"
        to = (
            f"from {self.least:g} to {self.most:g}"
            if self.most < math.inf
            else f"of {self.least:g} or more"
        )
        return f"a number {to}"


@dataclass(frozen=True)
class Op:
    """An op: its formula, its declaration and its name in torch.

    Args:
        name: its name in a spec.
        formula: the declared function.
        operands: its operands by name, each with its kind if the op fixes it.
        attributes: its attributes by name with their defaults.
        required: the attributes without a default.
        torch: the torch function that it equals, as a dotted name below `torch`; empty if torch has none.
        own: attributes that the torch function lacks; the op equals it only with their defaults.
        constant: operands that get no gradient.
        optional: operands that may be left out, each with the formula's default for it.
        classes: the operand that has the class, or another column number, of each row, as int64.
        by_probabilities: the op that takes a probability of each class of each row in that operand's place,
            if there is one. It is not registered.
        conditions: operands that decide a choice, by whether they are 0; they may be of bool, and get no
            gradient.
        eval_mode: what it does in evaluation.
        submodule: the module that a generated `Module` keeps for it, if any.
        owned: the module that it keeps instead of none if a spec sets the module's flag.
        trained: its formula in training, if that is different.
        tracked: the running averages, one number per channel, each with the part of that formula that it
            averages. The attribute `momentum` is the weight of a batch.
        source: whether it is a source: a product or a function of windows that torch computes. A chain starts
            from it.
        rank: the number of dims of what a source gives; 0 for any number, with the channel last.
        matrix: whether a source of three dims takes a matrix too, as torch's function takes a signal without
            a batch. Its windows are then of a row.
        inputs: the source's other inputs in `Module.forward`, beside x.
        keeps_channels: whether a source without a width leaves the channels as they are.
        pools: whether a source takes the largest element or the mean of each window.
        dims: the attributes that name a dim.
        several: whether they may name several dims.
        one_in_torch: whether torch's function takes only one of them.
        over: the dims that it reduces over if no attribute names them.
        groups: the attribute with the number of groups of channels. A row is then the channels of a group
            with all dims after them.
        indexes: whether its value is the number of a column, of int64: an output, from which no step goes on.
        several_values: whether torch refuses statistics of a single value: of a row, or, with `groups`, of a
            group in the whole batch.
        parts: the operands that may be left out, so that one tensor gives x as its first part, and these as
            the others; the attribute `dim` says along which dim.
        of_parts: the attributes that say something about these parts, so that only then they may be given.
        paired: whether its formula has the halves of a row (`fusegen.atoms.halves`).
        coarse: whether torch's function on CUDA rounds constants to float32 in float64 too. The formula is
            then the reference.
        choices: the valid values of string attributes.
        ranges: the valid numbers, for attributes that torch limits.
        ascending: attributes of which none may be more than the next, as torch's function refuses it.
        refused: parameters of the torch function that it does not take, beside `REFUSED`, each with what to
            do instead.
    """

    name: str
    formula: Callable[..., sp.Expr]
    operands: Mapping[str, Kind | None]
    attributes: Mapping[str, Attribute | None]
    required: frozenset[str]
    torch: str
    own: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    optional: Mapping[str, int | None] = field(default_factory=dict)
    classes: str = ""
    by_probabilities: Op | None = None
    conditions: tuple[str, ...] = ()
    eval_mode: EvalMode = "same"
    submodule: Submodule | None = None
    owned: Submodule | None = None
    trained: Callable[..., sp.Expr] | None = None
    tracked: Mapping[str, str] = field(default_factory=dict)
    source: bool = False
    rank: int = 0
    matrix: bool = False
    inputs: tuple[str, ...] = ()
    keeps_channels: bool = False
    pools: bool = False
    dims: tuple[str, ...] = ()
    several: bool = False
    one_in_torch: bool = False
    over: Over | None = None
    groups: str = ""
    indexes: bool = False
    several_values: bool = False
    parts: tuple[str, ...] = ()
    of_parts: tuple[str, ...] = ()
    paired: bool = False
    coarse: bool = False
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    ascending: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first line of the declaration's docstring: the formula."""
        return (inspect.getdoc(self.formula) or "").split("\n", 1)[0]

    @property
    def statement(self) -> str:
        """The formula, without its source."""
        return self.summary.split(". ", 1)[0].rstrip(".")

    @property
    def takes_only_x(self) -> bool:
        """Whether it has neither parameters nor other inputs, as pooling; of a source: whether it is no
        product."""
        return not self.inputs and not (self.submodule and self.submodule.operands)

    @property
    def of_channels(self) -> frozenset[str]:
        """Its operands with one number per channel."""
        return frozenset(name for name, kind in self.operands.items() if kind is Kind.CHANNEL)

    @property
    def takes_shape(self) -> bool:
        """Whether its torch function takes the shape of a row."""
        return "normalized_shape" in self.refused

    @property
    def takes_tensors(self) -> bool:
        """Whether its torch function takes only tensors as operands, no numbers."""
        return self.takes_alike or self.torch in _OF_TENSORS

    @property
    def takes_alike(self) -> bool:
        """Whether its torch function, of a loss, asks for operands of x's shape in place of numbers."""
        return "reduction" in self.attributes and not self.classes

    def is_alike(self, operand: str) -> bool:
        """Return whether its torch function broadcasts an operand not even if it is a tensor."""
        return self.takes_alike and operand not in self.optional and bool(self.optional)

    def is_in_torch(self, attributes: Mapping[str, object]) -> bool:
        """Return whether its torch function takes these attributes."""
        if not self.torch or any(attributes[name] != self.attributes[name] for name in self.own):
            return False
        return not (self.one_in_torch and any(isinstance(attributes[n], tuple) for n in self.dims))

    def refusal(self, parameter: str) -> str | None:
        """Return why a parameter of the torch function is refused, and what to do; None if unknown."""
        return self.refused.get(parameter) or REFUSED.get(parameter)
