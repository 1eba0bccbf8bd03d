"""Writes what a package declares of a mode: the operands that it takes, and its operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusegen.chain import Mode, Segment
from fusegen.chain.still_inputs import still_inputs
from fusegen.program import Input, Kind, Program, Reduce, Take
from fusegen.program.ir import arguments
from fusegen.spec.model import Spec


def declared_mode(spec: Spec, segment: Segment, mode: Mode) -> dict[str, object]:
    """Return the text of one `Mode(...)`: the operands and attributes that it takes, and its operators."""
    forward = mode.programs[0]
    taken = {i.name for i in forward.inputs}
    operands = [n for n, o in enumerate(segment.operands) if o.code in taken]
    attributes = [n for n, a in enumerate(segment.attributes) if spec.code(a) in taken]
    operators: list[str] = []
    still = still_inputs(segment, mode)
    steps = zip(mode.programs, mode.kernels, mode.memory_formats, strict=True)
    for order, (program, kernel, memory_format) in enumerate(steps):
        tensors = program.tensors
        like = tuple(tensors.index(o.like.tensor) for o in program.returned.values())
        by_column = ", by_column=True" if _by_column(program) else ""
        lies = f', memory_format="{memory_format}"' if memory_format != "contiguous" else ""
        value = ", value=True" if kernel.droppable else ""
        outlines = [f'"{output.outline}"' for output in program.returned.values()]
        reduced = not order and set(outlines) != {'"like"'}
        shaped = f", outlines={tuple_text(outlines)}" if reduced else ""
        wide = [output.float32 for output in program.returned.values()]
        typed = f", float32={tuple_text(wide)}" if not order and any(wide) else ""
        zeros = f", still={still}" if order == 1 and still else ""
        same = f", shared={pairs}" if (pairs := _shared(program)) else ""
        held = f", kept={pairs}" if (pairs := _kept(forward, program)) else ""
        told = ", told=True" if order and mode.told else ""
        needed = f", needs={bits}" if (bits := _needed_cotangents(program)) else ""
        read = order == 1 and mode.told and _read_beside(forward, program)
        stands = f", stands={tuple_text(read)}" if read else ""
        beside = order == 1 and _unread(*mode.programs)
        stood = f", unread={beside}" if beside else ""
        declared = f"{like}{by_column}{lies}{value}{shaped}{typed}{zeros}{same}{held}{told}{needed}"
        operators.append(f'Operator("{program.name}", {declared}{stands}{stood})')
    return {
        "name": mode.name,
        "operands": tuple(operands),
        "attributes": tuple(attributes),
        "operators": operators,
        "saved": tuple_text([f'"{v.kind.label}"' for v in mode.saved]),
        "random": mode.random,
    }


def _shared(program: Program) -> tuple[tuple[int, int], ...]:
    """Return the place of each tensor whose gradient is another tensor, and the place of that one's owner.

    The owner is the tensor that another gradient belongs to, or a cotangent.
    """
    tensors = program.tensors
    owners = {name: output.like.tensor for name, output in program.outputs.items()}
    return tuple(
        (tensors.index(s.like.tensor), tensors.index(owners.get(s.source, s.source)))
        for s in program.shared.values()
    )


def _kept(forward: Program, derivative: Program) -> tuple[tuple[int, int], ...]:
    """Return the place of each tensor that a derivative takes an output instead of, and that output's."""
    outputs = [*forward.returned]
    return tuple(
        (forward.tensors.index(tensor), outputs.index(name))
        for tensor, name in derivative.kept.items()
    )


def _needed_cotangents(program: Program) -> tuple[tuple[int, ...], ...]:
    """Return for each gradient which cotangents of the forward's outputs it needs, a bit for each.

    Any alternative is enough; () stands for any cotangent.
    """
    bits = {name: 1 << place for place, name in enumerate(program.optional)}
    found = [program.presence.get(name, ()) for name in program.returned]
    needed = [tuple(sorted(sum(bits[n] for n in own) for own in any_of)) for any_of in found]
    return tuple(needed) if any(needed) else ()


def _read_beside(forward: Program, backward: Program) -> tuple[int, ...]:
    """Return for each cotangent the place of an input that the kernel reads anyway and that lies as it does.

    It may stand for the cotangent where that is absent. Those that do not vary by element are small: they
    have -1, as where there is none. () if all have.
    """
    read = [a for v in backward.nodes() if not isinstance(v, Take) for a in arguments(v)]
    own = [i for i in read if isinstance(i, Input) and i.source == "tensor"]
    places = {t: place for place, t in enumerate(backward.tensors[: len(forward.tensors)])}
    found = []
    for tensor in backward.optional:
        cotangent = next(i for i in backward.inputs if i.tensor == tensor)
        whole = cotangent.access.kind == Kind.FULL
        alike = [
            places[i.tensor]
            for i in own
            if whole and i.tensor in places and replace(i.access, tensor=tensor) == cotangent.access
        ]
        found.append(min(alike, default=-1))
    return tuple(found) if any(place >= 0 for place in found) else ()


def _unread(forward: Program, backward: Program, *others: Program) -> tuple[tuple[int, int], ...]:
    """Return the inputs of a forward that its backward does not read, each with what stands for it.

    That is -1, any cotangent, if all of them lie as the input does, or an input that is read and lies alike.
    Small tensors cost nothing where they are kept. The place of a random number is that of an element of x.
    A tensor that is not read may still have a gradient in the next derivative, of `straight_through`.
    """
    if any(i.source == "random" for i in backward.inputs):
        return ()
    own = len(forward.tensors)
    read = {i.tensor for i in backward.nodes() if isinstance(i, Input)}
    for following in others[:1]:
        read |= {output.like.tensor for output in following.outputs.values()}
        read |= {gradient.like.tensor for gradient in following.shared.values()}
    lies = {
        i.tensor: i.access for i in backward.inputs if i.source == "tensor" and not i.access.place
    }
    taken, cotangents = backward.tensors[:own], backward.tensors[own:]
    found = []
    for place, (tensor, before) in enumerate(zip(taken, forward.tensors, strict=True)):
        access = lies[tensor]
        if tensor in read or before in backward.kept or access.kind != Kind.FULL:
            continue
        alike = [t for t in backward.tensors if replace(lies[t], tensor=tensor) == access]
        if all(cotangent in alike for cotangent in cotangents):
            found.append((place, -1))
        elif sources := [taken.index(t) for t in alike if t in taken and t in read]:
            found.append((place, sources[0]))
    return tuple(found)


#: Inputs that depend on a column's position in the whole row.
_OF_COLUMNS = (("index", "column"), ("extent", "cols"))


def _by_column(program: Program) -> bool:
    """Whether no value depends on a whole row.

    Nothing may be reduced along it except results, and no column may be known by its number.
    """
    last = {o.value for o in program.outputs.values()}
    return not any(
        (isinstance(v, Reduce) and Kind.COL in v.axes and (v not in last or v.op == "max"))
        or isinstance(v, Take)
        or (isinstance(v, Input) and (v.source, v.name) in _OF_COLUMNS)
        for v in program.nodes()
    )


def tuple_text(items: Sequence[int | str]) -> str:
    """Return a tuple as Python text."""
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"
