"""Finds gates of one projection that no op is, in a captured graph: a product of what is computed from both
halves of one tensor and from numbers, such as `(up.clamp(-7, 7) + 1) * gate * sigmoid(1.702 * gate)`, or a
product or a sum of what is computed from three parts or more, such as `sigmoid(f) * tanh(a) + b`.

As one call the parts are read where they are, also if they alternate by column, and their gradients are
written into one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, fx

from fusegen.models import functions, patterns
from fusegen.models.added_node import replace_node
from fusegen.models.arguments import Argument, tensor_of
from fusegen.models.calls import Call, call_or_none
from fusegen.models.effects import Effects
from fusegen.models.functions import PARTS
from fusegen.models.halves import Part, part_of
from fusegen.models.shapes import same

__all__ = ["write_other_gates"]

#: The longest formula, in characters: what is used twice is written twice.
_LONGEST = 400
#: The shortest text of a call without its argument: `abs()`.
_SHORTEST = 5


@dataclass
class _Formula:
    """What a node computes from the parts of one tensor, as it is read.

    Args:
        root: the node.
        read: the parts that it reads, by their nodes.
        inside: the nodes that it is computed by, in the graph's order.
        known: what `text` has returned for each node.
    """

    root: fx.Node
    read: dict[fx.Node, Part] = field(default_factory=dict)
    inside: dict[fx.Node, Call] = field(default_factory=dict)
    known: dict[fx.Node, str | None] = field(default_factory=dict)

    def text(self, value: Argument) -> str | None:
        """Return a value as text, or None if it is of something else than parts and numbers."""
        if not isinstance(value, fx.Node):
            return repr(value) if value >= 0 else f"({value!r})"
        if value not in self.known:  # many paths may lead to it
            self.known[value] = self._text(value)
        return self.known[value]

    def _text(self, value: fx.Node) -> str | None:
        part = part_of(value)
        if part is not None:
            self.read[value] = part
            return PARTS[part.place]
        call = call_or_none(value) if len(self.inside) < _LONGEST / _SHORTEST else None
        if call is None or call.op is None or call.dims or call.ends or call.condition is not None:
            return None
        if call.is_step or call.name in ("prelu", "rope") or call.op.paired:
            return None
        self.inside[value] = call
        given = [self.text(argument) for argument in (call.x, *call.operands.values())]
        if None in given or sum(len(text or "") for text in given) > _LONGEST:
            return None
        x, *others = given
        sign = patterns.INFIX.get(call.name)
        if sign:
            alpha = call.attributes.get("alpha", 1)
            return (
                f"({x} {sign} {others[0]})"
                if alpha == 1
                else f"({x} {sign} {alpha!r} * {others[0]})"
            )
        named = [f"{name}={text}" for name, text in zip(call.operands, others, strict=True)]
        named += [f"{name}={value!r}" for name, value in call.attributes.items()]
        return f"{call.name}({', '.join([str(x), *named])})"


def write_other_gates(graph: fx.Graph, effects: Effects) -> None:
    """Replace each gate of several parts by one call; what it was made of is left for those who read it.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved. It knows nothing of the nodes that are added.
    """
    for node in list(graph.nodes):
        op = patterns.op_of(node)
        if op is None or op.name not in ("mul", "add"):
            continue
        formula = _Formula(node)
        text = formula.text(node)
        if text is None or not _is_gate(formula, effects):
            continue
        part = next(iter(formula.read.values()))
        if part.among == 2 and op.name != "mul":
            continue
        function = functions.OfParts(
            text, _alone(formula), len(formula.inside), part.among, part.alternating
        )
        with graph.inserting_before(node):
            made = graph.call_function(function, (part.whole,))
        replace_node(node, made)


def _is_gate(formula: _Formula, effects: Effects) -> bool:
    """Whether a value has all parts of one tensor, of which nobody else reads what it is computed by."""
    read = list(formula.read.values())
    if len({part._replace(place=0) for part in read}) != 1:
        return False
    if {part.place for part in read} != {*range(read[0].among)}:
        return False
    among = [*formula.read, *formula.inside]
    stretch = effects.stretch.get(formula.root)
    if not all(effects.may_move(n) and effects.stretch.get(n) == stretch for n in among):
        return False
    value = tensor_of(formula.root)
    if value is None or any(not _is_like(node, value) for node in among):
        return False
    inside = set(formula.inside)
    return all(inside.issuperset(node.users) for node in among if node is not formula.root)


def _is_like(node: fx.Node, value: Tensor) -> bool:
    tensor = tensor_of(node)
    return (
        tensor is not None
        and tensor.dtype is value.dtype
        and same(tuple(tensor.shape), tuple(value.shape))
    )


def _alone(formula: _Formula) -> fx.GraphModule:
    """Return what computes a formula of the parts, by the nodes that it was found as."""
    graph = fx.Graph()
    count = next(iter(formula.read.values())).among
    given = [graph.placeholder(name) for name in PARTS[:count]]
    known = {node: given[part.place] for node, part in formula.read.items()}
    for node in formula.root.graph.nodes:
        if node in formula.inside:
            known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(known[formula.root])
    return fx.GraphModule({}, graph)
