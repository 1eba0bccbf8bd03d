"""What a generated package declares of an operator."""

from __future__ import annotations

from typing import NamedTuple


class Operator(NamedTuple):
    """One operator of a mode: the forward, or the derivative of the operator before.

    Attributes:
        name: its name below `torch.ops.fusegen_<package>_<hash>`.
        like: for each output, the index of the input whose kind and shape it has; in a derivative that is the
            input that the gradient belongs to.
        by_column: whether no value depends on a whole row, so columns can be computed separately.
        memory_format: the formats of x that it takes: "contiguous", "any", "packed" or "strided" (memory.py).
        value: whether there is a second operator, with "_value" after its name, that leaves out the
            statistics.
        outlines: of the forward pass, the shape of each output, where not all are "like" x: x's with its
            columns reduced, "keepdim" with size 1, "row" dropped; "scalar" is one number, "half" is one half
            of x.
        float32: of the forward pass, whether each output is of float32 where x has 16 bits, if any is.
        still: of the backward, the inputs of the forward whose gradient is 0 everywhere; no output.
        shared: of a derivative, the inputs of the operator before whose gradient is another tensor, with that
            one: the place of a cotangent, or of the input whose gradient it is too; no output.
        kept: of the backward, the inputs of the forward in whose place it takes an output of that, by the
            places of both. They are not kept for it.
        told: of a derivative, whether its last argument says which cotangents of the forward's outputs are
            present, a bit for each.
        needs: of a derivative, for each output, the bits of the cotangents without which it has no value:
            alternatives, or none if any cotangent is enough.
        unread: of the backward, the inputs of the forward of which it reads no number, each with -1 if all
            its cotangents lie as the input does, or an input that it reads and that lies so. They are not
            kept for it: a cotangent or that input stands for them.
        stands: of the backward, for each output of the forward, the input that the kernel is given for its
            cotangent where that is absent: it reads this one anyway. -1 if there is none.
    """

    name: str
    like: tuple[int, ...]
    by_column: bool = False
    memory_format: str = "contiguous"
    value: bool = False
    outlines: tuple[str, ...] = ()
    float32: tuple[bool, ...] = ()
    still: tuple[int, ...] = ()
    shared: tuple[tuple[int, int], ...] = ()
    kept: tuple[tuple[int, int], ...] = ()
    told: bool = False
    needs: tuple[tuple[int, ...], ...] = ()
    stands: tuple[int, ...] = ()
    unread: tuple[tuple[int, int], ...] = ()
