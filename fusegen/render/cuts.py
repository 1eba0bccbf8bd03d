"""Lines of Python that cut tensors into parts, which are views of them."""

from __future__ import annotations

from collections.abc import Sequence

from fusegen.chain import Chain
from fusegen.render.module_forward import parameters_of
from fusegen.render.places import kept_sizes
from fusegen.spec.keys import REST
from fusegen.spec.model import PartsOf, Setting

__all__ = ["cut_line", "cut_lines", "given_along", "taken_apart", "torch_aligns"]


def cut_line(
    names: Sequence[str], sizes: Sequence[Setting], dim: int, text: str, label: str
) -> str:
    """Return the line that cuts a tensor into parts.

    Args:
        names: the names of the parts.
        sizes: their sizes; none if they are of one width.
        dim: the dim that they are along, counted from the end.
        text: the text of the tensor.
        label: the step that takes them.
    """
    parts = ", ".join(names)
    if not sizes:
        return f"{parts} = {text}.unflatten({dim}, ({len(names)}, -1)).unbind({dim - 1})"
    kept = f"self.{kept_sizes(label)}"
    texts = [
        str(size) if isinstance(size, int) else f"{kept}[{place}]"
        for place, size in enumerate(sizes)
    ]
    if REST in sizes:
        others = " - ".join(size for size in texts if size != str(REST))
        texts[sizes.index(REST)] = f"{text}.shape[{dim}] - {others}"
    elif any(size.startswith(kept) for size in texts):
        return f"{parts} = {text}.split({kept}, {dim})"
    return f"{parts} = {text}.split(({', '.join(texts)}), {dim})"


def taken_apart(chain: Chain) -> list[PartsOf]:
    """Return what a chain takes parts of."""
    taken = {operand.name for operand in chain.operands}
    return [cut for cut in chain.spec.taken_apart if not taken.isdisjoint(cut.names)]


def cut_lines(chain: Chain) -> list[str]:
    """Return the lines that cut what a chain takes parts of."""
    held = parameters_of(chain.spec)
    lines = []
    for cut in taken_apart(chain):
        text = held.get(cut.whole, cut.whole)
        if cut.dims is not None and not torch_aligns(cut.dims):
            text = f"along_dims({text}, {cut.dims}, x.shape, {cut.dim})"
        lines.append(cut_line(cut.names, cut.sizes, cut.dim, text, cut.label))
    return lines


def given_along(chain: Chain) -> dict[str, tuple[int, ...]]:
    """Return the dims of those inputs and parameters of a `Module` that may have these alone.

    What is taken apart gets x's dims as it is cut.
    """
    parts = {name for cut in taken_apart(chain) for name in cut.names}
    given = [o for o in chain.operands if o.owner in (None, o.name) and o.name not in parts]
    return {o.name: o.alone for o in given if o.alone}


def torch_aligns(dims: Sequence[int]) -> bool:
    """Whether torch aligns a tensor that has these dims alone, counted from the end, with x."""
    return [*dims] == [*range(-len(dims), 0)]
