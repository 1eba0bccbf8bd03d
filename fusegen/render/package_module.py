"""Writes the `__init__.py` of a package: its chains' functions, and the Module that calls them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import jinja2

from fusegen.chain import Chain, Chains
from fusegen.chain.chains import earlier_values, larger_operands
from fusegen.render.cuts import cut_line
from fusegen.render.module import (
    constructor_of,
    helpers_in,
    inputs_of,
    lines_in_torch,
    module_context,
    summary_of,
)
from fusegen.render.module_docs import module_signature
from fusegen.render.module_forward import (
    factors_of,
    inputs_of_source,
    parameters_of,
    pooled_text,
)
from fusegen.render.module_members import members_of
from fusegen.render.module_names import RESULT
from fusegen.render.own_sizes import as_small_text, operands_of_smaller
from fusegen.render.places import kept_at
from fusegen.render.starts import with_dims_of_x
from fusegen.spec.cut import CUT, sizes_of
from fusegen.spec.factor import OF
from fusegen.spec.model import INPUT, Spec, Step

__all__ = ["contexts_of", "method_text", "module_text", "original_lines"]


def module_text(
    environment: jinja2.Environment, chains: Chains, shared: Mapping[str, object], made_of: str
) -> str:
    """Return the text of the module.

    Args:
        environment: knows the templates.
        chains: the chains of the package.
        shared: what the templates of all files know.
        made_of: the hash of what the package is made of.
    """
    own, package = contexts_of(chains, {**shared, "made_of": made_of, "alone": False})

    def texts(template: str) -> list[str]:
        return [environment.get_template(template).render(each).rstrip("\n") for each in own]

    package |= {
        "chain_texts": texts("module/chains.py.j2"),
        "function_texts": texts("module/function.py.j2"),
        "method_texts": [method_text(environment, each) for each in own],
    }
    text = environment.get_template("module.py.j2")
    poolings = _poolings([*package["forward"], *package["method_texts"]])
    return text.render(package | {"poolings": poolings})


def contexts_of(
    chains: Chains, shared: Mapping[str, object]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what the templates need of each chain, and of the package as a whole.

    Args:
        chains: the chains of the package.
        shared: what the templates of all files know.
    """
    common = {**shared, "result": RESULT}
    by_kernels = not shared["alone"]  # a file alone has no kernels for windows
    own: list[dict[str, Any]] = []
    for chain in chains.fused:
        context: dict[str, Any] = {**common, **module_context(chain)}
        earlier = earlier_values(chains.spec, chain)
        context["larger"] = larger_operands(chain, earlier)
        context["rank"] = chain.layout.rank
        context["smaller"] = smaller = operands_of_smaller(chain, earlier)
        beside = [text for texts in smaller.values() for text in texts]
        context["returned_values"] = [
            as_small_text(text, smaller[label]) if label in smaller else text
            for label, text in zip(
                chain.spec.outputs or [None], context["returned_values"], strict=False
            )
        ]
        context["helpers"] = sorted({*context["helpers"], *helpers_in(beside)})
        convolution = _pooled_by(chains, chain) if by_kernels else None
        if convolution is not None:
            _convolve_first(context, chain.spec.steps[0], convolution)
        own.append(context)
    one = len(chains.pieces) == 1
    forward = [] if one else _forward(chains, _calls, by_kernels=by_kernels)
    helpers = {name for context in own for name in context["helpers"]} | {*helpers_in(forward)}
    helpers |= {"as_large_as"} if any(context["larger"] for context in own) else set()
    helpers |= {"as_small_as"} if any(context["smaller"] for context in own) else set()
    package = own[0] if one else {**common, **_package_context(chains, own)}
    package |= {
        "functions": [context["function"] for context in own],
        "has_products": any(context["source"] for context in own),
        "forward": forward,
        "helpers": sorted(helpers),
        "rearranging": sorted({n for one in own for n in one["rearranging"]} - helpers),
        "submodule_helpers": _submodule_helpers(own),
        "reading": any(context["source"] and context["source"].reading for context in own),
    }
    return own, package


def _pooled_by(chains: Chains, later: Chain | Spec) -> Step | None:
    """Return the convolution whose value a piece pools, if nothing else takes that; None otherwise."""
    before: Chain | Spec | None = None
    for piece in chains.pieces:
        if piece is later:
            break
        before = piece
    if not isinstance(before, Spec) or not _pools(later) or OF in _spec(later).steps[0].factors:
        return None
    step = before.steps[0]
    convolves = step.op and step.op.submodule and step.op.submodule.operands and step.dims > 2
    return step if convolves and step.label not in _taken_later(chains) else None


def _convolve_first(context: dict[str, Any], pooling: Step, convolution: Step) -> None:
    """Let a chain's method begin with the convolution whose value it pools."""
    text = pooled_text(pooling, "x", convolution)
    context["source"] = replace(context["source"], pooled=text)
    if context["stepwise"]:
        context["stepwise"] = [f"x = {kept_at(convolution)}(x)", *context["stepwise"]]


def _spec(piece: Chain | Spec) -> Spec:
    return piece if isinstance(piece, Spec) else piece.spec


def _pools(piece: Chain | Spec) -> bool:
    op = _spec(piece).steps[0].op
    return op is not None and op.pools


def _poolings(texts: Iterable[str]) -> list[str]:
    """Return the functions of `fusegen.runtime.windows` that texts call."""
    called = "\n".join(texts)
    return [
        name for name in ("convolve_and_pool", "pool_windows") if re.search(rf"\b{name}\(", called)
    ]


def method_text(environment: jinja2.Environment, context: Mapping[str, object]) -> str:
    """Return the text of the methods of `Module` that call a chain."""
    return environment.get_template("module/methods.py.j2").render(context).rstrip("\n")


def _submodule_helpers(own: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of `fusegen.runtime.submodules` that methods use."""
    sources = [context["source"] for context in own if context["source"]]
    plain = any(context["fused"] for context in own) or any(s.held for s in sources)
    return ["no_bias"] * any(s.bias for s in sources) + ["plain"] * plain


def _package_context(chains: Chains, own: list[dict[str, Any]]) -> dict[str, object]:
    """Return what the template needs of a package of several chains."""
    spec = chains.spec
    operands = {o.name: o for chain in chains.fused for o in chain.operands}
    kept = {n: place for context in own for n, place in _places(context).items()}
    numbers = [a.name for a in spec.arguments if kept.get(a.name) == f"self.{a.name}"]
    members = members_of(spec, tuple(operands.values()), numbers)
    constructor, inputs = constructor_of(spec), _inputs(chains)
    return {
        "summary": summary_of(spec),
        "description": spec.description,
        "example": own[0]["example"],
        "signatures": [*(c["signatures"][0] for c in own), module_signature(constructor, inputs)],
        "dtypes_of_their_own": max((c["dtypes_of_their_own"] for c in own), key=len),
        "uses_shapes": any(context["uses_shapes"] for context in own),
        "tracked": any(context["tracked"] for context in own),
        "training": any(context["training"] for context in own),
        "constructor": constructor,
        "members": members,
        "factory": any("dtype=dtype" in line for line in members),
        "inputs": inputs,
        "returned": "tuple[Tensor, ...]" if spec.outputs else "Tensor",
        "outputs": spec.outputs,
    }


def _places(context: Mapping[str, Any]) -> Mapping[str, str]:
    """Return where a chain's method reads each number; one that the Module keeps itself comes last."""
    places: Mapping[str, str] = context["held_attributes"]
    return dict(sorted(places.items(), key=lambda item: item[1].startswith("self.")))


def _inputs(chains: Chains) -> list[str]:
    """Return the tensors with which a `Module` is called."""
    made = {INPUT, *chains.spec.computed, *parameters_of(chains.spec)}
    found = dict.fromkeys(["x"])
    for piece in chains.pieces:
        start = [factor.name for factor in [_spec(piece).steps[0].factors.get(OF)] if factor]
        names = inputs_of(piece) if isinstance(piece, Chain) else _inputs_of_source(piece)
        found |= dict.fromkeys(name for name in (*start, *names) if name not in made)
    return [*found]


def original_lines(chains: Chains) -> list[str]:
    """Return the lines that compute the model's outputs in torch, step by step; the last is the return."""
    if len(chains.pieces) == 1:
        outputs = chains.spec.outputs
        named = [n if n in chains.spec.further_outputs else "x" for n in outputs or ("x",)]
        return [*lines_in_torch(chains.fused[0]), f"return {', '.join(named)}"]
    return _forward(chains, _in_torch, by_kernels=False)


def _calls(chain: Chain, start: str) -> list[str]:
    """Return the line that calls a chain's method of `Module`."""
    own = chain.spec
    last = own.steps[-1].label
    outputs = ["x" if label == last else label for label in own.outputs or (last,)]
    _, *beside = inputs_of(chain)
    return [f"{', '.join(outputs)} = self._chain_{own.number}({', '.join([start, *beside])})"]


def _in_torch(chain: Chain, start: str) -> list[str]:
    """Return the lines of a chain in torch."""
    return [f"x = {start}"] * (start != "x") + lines_in_torch(chain)


def _forward(
    chains: Chains, lines_of: Callable[[Chain, str], list[str]], *, by_kernels: bool
) -> list[str]:
    """Return the lines of a `forward`: a chain after another, and the sources that need no kernel.

    Args:
        chains: the chains.
        lines_of: those of a chain, and the value that it starts from.
        by_kernels: whether the package's kernels pool; what pools then begins with its convolution.
    """
    spec, later = chains.spec, _taken_later(chains)
    lines: list[str] = []
    for place, piece in enumerate(chains.pieces):
        own = _spec(piece)
        last = own.steps[-1].label
        after = chains.pieces[place + 1] if piece is not chains.pieces[-1] else None
        if by_kernels and after and _pooled_by(chains, after):
            continue  # what pools it begins with it
        start = own.steps[0].factors[OF].name if OF in own.steps[0].factors else "x"
        start = with_dims_of_x(spec, own.steps[0], start)
        if isinstance(piece, Chain):
            lines += lines_of(piece, start)
        elif own.steps[0].op is CUT:
            cut = own.steps[0]
            dim = cut.attributes["dim"]
            assert isinstance(dim, int)
            lines.append(cut_line(cut.parts, sizes_of(cut), dim, start, cut.label))
        else:
            text = _call_of_source(piece, start)
            if by_kernels and _pools(piece):
                text = pooled_text(piece.steps[0], start, _pooled_by(chains, piece))
            lines.append(f"x = {text}")
        if last in later and piece is not chains.pieces[-1]:
            lines.append(f"{last} = x")
    last = spec.steps[-1].label
    outputs = ["x" if label == last else label for label in spec.outputs or (last,)]
    taken = INPUT in later or any(f"{INPUT}.shape" in line for line in lines)
    return [*[f"{INPUT} = x"] * taken, *lines, f"return {', '.join(outputs)}"]


def _taken_later(chains: Chains) -> set[str]:
    """Return the values that something later than the next chain may take."""
    later = {name for chain in chains.fused for name in inputs_of(chain)} | {*chains.spec.outputs}
    return later | {f.name for step in chains.spec.steps for f in step.factors.values()}


def _inputs_of_source(spec: Spec) -> list[str]:
    return ["x", *inputs_of_source(spec.steps[0], parameters_of(spec))]


def _call_of_source(spec: Spec, start: str) -> str:
    """Return the text of a source's value with its bias."""
    step = spec.steps[0]
    assert step.op is not None
    function = kept_at(step) if step.op.submodule else f"torch.{step.op.torch}"
    return f"{function}({', '.join([start, *factors_of(step, parameters_of(spec))])})"
