"""What fusing a region is worth: bytes and launches that are saved, against the cost of a call."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import fx

from fusegen.models import functions, patterns
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import Call, call_of
from fusegen.models.regions import Region
from fusegen.models.shapes import numel

__all__ = ["Cost", "bytes_of", "cost_of"]

#: Bytes a second of memory, and seconds of a launch and of a call of a package, by the kind of device: an
#: H200 (docs/benchmarks.md), and a server's processor with the few threads that a call of torch uses.
_RATE = {"cuda": 4.0e12, "cpu": 2.0e10}
_LAUNCH = {"cuda": 5.0e-6, "cpu": 3.0e-6}
_CALL = {"cuda": 13.0e-6, "cpu": 10.0e-6}
#: Ops that torch computes by several kernels: how many more than one, and how often these read or write a
#: tensor as large as x beside reading it once and writing the result.
_MORE = {
    "logsumexp": (5, 5),
    "normalize": (2, 1),
    "softmin": (1, 2),
    "softsign": (2, 5),
    "tanhshrink": (1, 3),
}
#: The same of those for which only a GPU has a kernel; a weight takes another one.
_MORE_ON_A_CPU = {"rms_norm": (4, 3)}
#: How much longer than memory a kernel of torch's for a GPU takes, in passes over x: eager beside the byte
#: limit, forward, in benchmarks/vocabulary.json. That of gelu computes too much: 1.4 times it in a ViT.
_LONGER_ON_A_GPU = {
    "gelu": 1,
    "group_norm": 3,
    "layer_norm": 1,
    "log_softmax": 2,
    "rms_norm": 1,
}


#: From how many bytes on torch's sums of products count: in a cache they cost less than a call.
_LEAST_SUMMED = 2**20


@dataclass(frozen=True)
class Cost:
    """A region op by op and fused: a forward pass, but for what is saved.

    Args:
        bytes_before: what the ops read and write one by one.
        bytes_after: what the package reads and writes.
        launches: how many kernels torch starts: one for most ops, casts among them, and two for a loss.
        seconds_saved: the estimate of what fusing saves, in seconds. In training it has what torch writes
            and reads again to sum the gradient of a broadcast tensor.
    """

    bytes_before: int
    bytes_after: int
    launches: int
    seconds_saved: float


def cost_of(region: Region, inlined: Collection[fx.Node] = ()) -> Cost:
    """Return what a forward pass of a region moves in the shapes that it was captured with.

    Args:
        region: the region.
        inlined: small tensors outside of it that its package computes too.
    """
    calls = {**region.calls, **{node: call_of(node) for node in inlined}}
    computed = [node for node, call in calls.items() if not _is_nothing(node, call)]
    # A gate of two halves that is no function of torch is two ops, with a tensor between them.
    twice = [n for n in computed if calls[n].halves and n.target in patterns.GATES]
    before = sum(bytes_of(n) + sum(map(bytes_of, calls[n].inputs)) for n in computed)
    before += sum(2 * bytes_of(n) for n in twice)
    others = sum(n.target.ops - 1 for n in computed if isinstance(n.target, functions.OfParts))
    before += 2 * others * bytes_of(next(iter(computed))) if others else 0
    # A rotation that is written out is eight ops, or seven of halves.
    turned = [n for n in computed if n.target is functions.rope]
    before += sum(7 * bytes_of(n) for n in turned)
    # So is a loss: torch writes what it adds up, or the logarithms of a softmax, and reads that again.
    losses = [n for n in computed if _is_two(calls[n])]
    before += sum(2 * bytes_of(n) for loss in losses for n in calls[loss].inputs[:1])
    # Tensors whose sum is taken apart are added before: each sum is an op, which reads two and writes one.
    parts = [call for call in calls.values() if call.part is not None][:1]
    sums = sum(len(call.operands) for call in parts)
    before += sum(3 * sums * bytes_of(call.x) for call in parts if isinstance(call.x, fx.Node))
    others += sums
    kind = "cuda" if region.device.type == "cuda" else "cpu"
    for call in (calls[n] for n in computed):
        kernels, passes = _more(call, kind)
        others += kernels
        before += passes * bytes_of(call.x) if isinstance(call.x, fx.Node) else 0
    after = sum(map(bytes_of, (*region.inputs, *region.outputs)))
    launches = len(computed) + len(twice) + len(losses) + 6 * len(turned) + others
    longer = sum(_longer(calls[n], kind) for n in computed)
    summed = sum(_summed(n, calls[n]) for n in computed)
    saved = (
        (before + longer + summed - after) / _RATE[kind] + launches * _LAUNCH[kind] - _CALL[kind]
    )
    return Cost(before, after, launches, saved)


def _more(call: Call, kind: str) -> tuple[int, int]:
    """Return how many kernels more than one torch takes for a call, and how often these pass over its x."""
    kernels, passes = _MORE.get(call.name, (0, 0))
    if kind == "cpu" and call.name in _MORE_ON_A_CPU:
        kernels, passes = _MORE_ON_A_CPU[call.name]
        return (kernels + 1, passes + 2) if call.operands else (kernels, passes)
    return kernels, passes


def _longer(call: Call, kind: str) -> int:
    """Return how many bytes memory could move in the time that torch's kernel takes beside moving its own."""
    passes = _LONGER_ON_A_GPU.get(call.name, 0) if kind == "cuda" else 0
    return passes * bytes_of(call.x) if isinstance(call.x, fx.Node) else 0


def _summed(node: fx.Node, call: Call) -> int:
    """Return how many bytes torch moves in a backward pass for the products that it sums to the gradients of
    tensors which a call broadcasts: each is as large as the value, written once and read once."""
    value = tensor_of(node)
    if call.name not in ("mul", "div") or value is None or not value.requires_grad:
        return 0
    if bytes_of(node) < _LEAST_SUMMED:
        return 0
    factors = [tensor_of(factor) for factor in (call.x, *call.operands.values())]
    small = [t for t in factors if t is not None and numel(t.shape) < numel(value.shape)]
    return 2 * bytes_of(node) * sum(t.requires_grad for t in small)


def _is_two(call: Call) -> bool:
    """Return whether torch runs a loss as two ops: but for `nll_loss`, which reads its logarithms once."""
    if call.op is None or not call.ends:
        return False
    return "reduction" in call.op.attributes and call.name != "nll_loss"


def _is_nothing(node: fx.Node, call: Call) -> bool:
    """Return whether torch computes nothing for a node: a part, a cast to its dtype, dropout in eval."""
    if call.part is not None:
        return True
    if call.op is not None or not isinstance(call.x, fx.Node):
        return False
    before, after = tensor_of(call.x), tensor_of(node)
    return before is not None and after is not None and before.dtype is after.dtype


def bytes_of(node: fx.Node) -> int:
    """Return the bytes of a node's tensor; 0 of what is no tensor."""
    tensor = tensor_of(node)
    return numel(tuple(tensor.shape)) * tensor.element_size() if tensor is not None else 0
