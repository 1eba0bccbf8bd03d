"""What a step may give its op: the keys below the op's name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fusegen.ops import Op
from fusegen.spec.factor import OF

__all__ = ["DTYPE", "OpKeys"]

#: The key for the dtype of the parameters in a step's submodule.
DTYPE = "dtype"


@dataclass(frozen=True)
class OpKeys:
    """The keys that an op takes, beside its attributes and `name`.

    Args:
        slots: its operands, except those that its submodule has.
        inside: the operands that its submodule has.
        sized: sizes of the submodule.
        geometry: further settings of the submodule, with their defaults.
        flags: the setting that switches the submodule's operands on, with its default.
        dtype: whether the submodule's parameters may be of float32 alone.
        factors: what torch's function of a source takes: its other inputs, and `of`.
    """

    slots: tuple[str, ...]
    inside: tuple[str, ...]
    sized: tuple[str, ...]
    geometry: Mapping[str, int]
    flags: Mapping[str, bool]
    dtype: bool
    factors: tuple[str, ...]

    @staticmethod
    def of(op: Op) -> OpKeys:
        """Return the keys of an op."""
        kept = op.submodule
        inside = kept.operands if kept else ()
        flags = {kept.flag: kept.flagged} if kept and kept.flag else {}
        return OpKeys(
            slots=tuple(name for name in op.operands if name not in inside),
            inside=inside,
            sized=tuple(n for n in (kept.sized_by if kept else ()) if n not in op.attributes),
            geometry=kept.geometry if kept else {},
            flags=flags,
            dtype=bool(inside) and not op.source,
            factors=(*op.inputs, OF) if op.source else (),
        )

    def needed(self, op: Op) -> list[str]:
        """Return the operands that a step must give."""
        return [name for name in self.slots if name not in op.optional and name not in op.parts]

    def alone(self, op: Op) -> list[str]:
        """Return what a single value, given without a key, is for: an operand, what a source takes, or an
        attribute."""
        operands = [name for name in self.slots if name not in op.optional]
        own = [*op.inputs, *(self.sized if op.source and len(self.sized) == 1 else ())]
        return operands or own or list(op.attributes)

    def listed(self, op: Op, sizes: Collection[str]) -> list[str]:
        """Return all keys in their order; `sizes` are the sizes that a step gives."""
        keys = [*self.slots, *op.attributes, *sizes, *self.geometry, *self.flags, *self.factors]
        return [*keys, DTYPE] if self.dtype else keys
