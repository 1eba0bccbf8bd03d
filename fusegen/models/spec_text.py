"""A region's spec: its text, its package's name, and what it is called on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx

from fusegen.base.version import __version__
from fusegen.models.operands import Held
from fusegen.ops import find

__all__ = ["PackageSpec", "RegionSpec", "Step", "package_name", "spec_text", "yaml_text"]


@dataclass(frozen=True)
class PackageSpec:
    """A spec.

    Args:
        name: the spec's and the package's name; equal specs have equal names.
        text: the spec.
    """

    name: str
    text: str


@dataclass(frozen=True)
class RegionSpec(PackageSpec):
    """A region as a spec, with what it is called on.

    Args:
        name: the spec's and the package's name; equal specs have equal names.
        text: the spec.
        x: the node that is the activation.
        operands: the other tensors, by their names in `apply`.
        outputs: the region's nodes whose values the package returns, in order.
        dtype: the dtype that the tensors are read and written in, but for operands of float32.
        training: whether it computes as in training.
        inlined: the small tensors outside of the region that the package computes itself.
        broadcast: whether the activation is broadcast with the other tensors before the call.
    """

    x: fx.Node
    operands: dict[str, Held]
    outputs: list[fx.Node]
    dtype: torch.dtype
    training: bool
    inlined: frozenset[fx.Node]
    broadcast: bool


@dataclass(frozen=True)
class Step:
    """A step of a spec.

    Args:
        op: the op, or "expr".
        given: what it is given, by key, as YAML.
        label: its name; empty if it has none.
    """

    op: str
    given: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    @property
    def short(self) -> str:
        """The key that may be left out, if the step is given nothing else; or empty."""
        if len(self.given) != 1:
            return ""
        (key,) = self.given
        op = find(self.op)
        return key if key == "formula" or (op and [*op.operands] == [key]) else ""

    def __str__(self) -> str:
        given = [f"{key}: {value}" for key, value in self.given.items()]
        if self.label:
            # A formula comes before its name, a name before what else an op is given.
            given.insert(len(given) if self.op == "expr" else 0, f"name: {self.label}")
        if not given:
            return f"  - {self.op}"
        if self.short and not self.label:
            return f"  - {self.op}: {self.given[self.short]}"
        return f"  - {self.op}: {{{', '.join(given)}}}"


def spec_text(
    *,
    order: int,
    dtype: torch.dtype,
    dims: int,
    training: bool,
    operands: Mapping[str, str],
    outputs: Sequence[str],
    steps: Sequence[Step],
) -> str:
    """Return the text of a spec.

    Args:
        order: how many derivatives it has.
        dtype: what it is compiled for.
        dims: how many dims the activation has; 0 for any number.
        training: whether it is only called as in training.
        operands: the kind of each operand.
        outputs: the steps whose values it returns, as YAML; empty if it is the last one.
        steps: its steps.
    """
    lines = [f"order: {order}", f"dtypes: [{str(dtype).removeprefix('torch.')}]"]
    if training:
        lines.append("mode: training")
    if dims:
        lines.append(f"dims: {dims}")
    if operands:
        lines += ["operands:", *(f"  {name}: {kind}" for name, kind in operands.items())]
    if outputs:
        lines.append(f"outputs: [{', '.join(outputs)}]")
    return "\n".join([*lines, "chain:", *map(str, steps), ""])


def package_name(words: Sequence[str], text: str) -> str:
    """Return a name that tells a reader what a package computes, and tells packages apart."""
    readable = "_".join(dict.fromkeys(words))[:40].strip("_").lower()
    return f"{readable}_{hashlib.sha256((__version__ + text).encode()).hexdigest()[:10]}"


def yaml_text(value: object) -> str:
    """Return an attribute as YAML."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
