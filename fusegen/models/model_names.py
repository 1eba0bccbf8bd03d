"""What a model calls the values of its graph: parameters, inputs, variables and submodules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from fusegen.models import patterns
from fusegen.models.arguments import name_of
from fusegen.models.calls import Call
from fusegen.spec.names import problem

__all__ = ["ModelNames", "words"]

#: Names of tensors that say nothing without the name of their module.
_PLAIN = frozenset({"weight", "bias", "running_mean", "running_var"})


class ModelNames:
    """Names of the nodes of a graph that torch captured of a model.

    Args:
        graph: the graph.
        given: the tensors that the graph is called on.
        inputs: the model's inputs by name.
        model: the model; None of a function.
    """

    def __init__(
        self,
        graph: fx.Graph,
        given: Sequence[Any],
        inputs: Mapping[str, Any],
        model: nn.Module | None,
    ) -> None:
        self._model = model
        modules = model.named_modules() if model is not None else ()
        self._paths = {str(id(module)): path for path, module in modules}
        known = {id(t): name for name, t in inputs.items() if isinstance(t, Tensor)}
        self._is_input = set(known.values())
        if model is not None:
            held = (model.named_parameters, model.named_buffers)
            known |= {id(t): n for tensors in held for n, t in tensors(remove_duplicate=False)}
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        self._sources = {
            node: known[id(t)]
            for node, t in zip(placeholders, given, strict=False)
            if id(t) in known
        }

    def source(self, node: fx.Node) -> str:
        """Return where a value comes from, for people to read."""
        name = self._sources.get(node, "")
        if name:
            return f"the input {name}" if name in self._is_input else name
        leaf = self.leaf(node)
        if leaf:
            return f"what {leaf} gives"
        variable = variable_of(node)
        if variable:
            return variable
        inner = _inner(node)
        if inner is None:
            return self.value(node)
        while _is_view(node) and _is_view(inner) and not self._is_named(inner):
            deeper = _inner(inner)
            if deeper is None:
                break
            inner = deeper
        return f"{'a view' if _is_view(node) else name_of(node)} of {self.source(inner)}"

    def _is_named(self, node: fx.Node) -> bool:
        """Return whether the model has a name for a value."""
        return bool(self._sources.get(node) or self.leaf(node) or variable_of(node))

    def value(self, node: fx.Node) -> str:
        """Return a name for a value: that of its parameter, input, submodule, variable or function."""
        name = self._sources.get(node, "")
        if name:
            parts = name.split(".")
            of_module = self._words_of(parts[:-1])[-1:] if parts[-1] in _PLAIN else []
            return words(*of_module, parts[-1])
        if node.op == "placeholder":
            return words(node.name.strip("_").removeprefix("l_"))
        if node.op == "get_attr":
            return words(str(node.target).rsplit(".", maxsplit=1)[-1])
        leaf = self.leaf(node)
        if leaf:
            return words(self._words_of(leaf.split("."))[-1])
        variable = variable_of(node)
        inner = _inner(node)
        if variable or inner is None:
            return variable or words(name_of(node))
        return self.value(inner) if _is_view(node) else words(self.value(inner), name_of(node))

    def step(self, node: fx.Node, call: Call) -> str:
        """Return a name for a step: that of its submodule, variable or op."""
        if self.leaf(node):
            return self.value(node)
        variable = variable_of(node)
        return variable if variable and problem(variable, attribute=True) is None else call.name

    def leaf(self, node: fx.Node) -> str:
        """Return the path of the module of torch.nn that computes a node; empty if none does."""
        stack = self._stack(node)
        return stack[-1][0] if stack and stack[-1][1].startswith("torch.nn.") else ""

    def owner(self, node: fx.Node) -> str:
        """Return the path of the innermost module that people wrote; empty of the whole model."""
        own = [path for path, kind in self._stack(node) if not kind.startswith("torch.nn.")]
        return own[-1] if own else ""

    def place(self, nodes: Sequence[fx.Node]) -> str:
        """Return the path of the innermost module that has all nodes."""
        paths = [[p for p in self.owner(node).split(".") if p] for node in nodes]
        common = []
        for parts in zip(*paths, strict=False):
            if len(set(parts)) > 1:
                break
            common.append(parts[0])
        return ".".join(common)

    def _stack(self, node: fx.Node) -> list[tuple[str, str]]:
        """Return the modules that a node is computed in, outermost first: paths and modules of classes."""
        found = []
        for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items():
            plain = re.sub(r"\['?(\w+)'?\]", r".\1", re.sub(r"^L\['\w+'\]", "", path)).strip(".")
            if "cell_contents" in plain:  # a function that the model keeps calls it
                plain = self._paths.get(key.split("@")[0], plain)
            named = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            if plain:
                found.append((plain, named))
        return found

    def _words_of(self, parts: Sequence[str]) -> list[str]:
        """Return the words of a module's path; a number becomes the name of the module's class."""
        found = []
        for place, part in enumerate(parts):
            module = self._at(parts[: place + 1]) if part.isdigit() else None
            found.append(type(module).__name__ if module is not None else part)
        return found

    def _at(self, parts: Sequence[str]) -> nn.Module | None:
        module: Any = self._model
        for part in parts:
            module = module._modules.get(part) if isinstance(module, nn.Module) else None
        return module if isinstance(module, nn.Module) else None


#: A word of mixed letters, which capitals end: ReLU, SiLU, ViT, MoE, SwiGLU.
_MIXED = re.compile(r"(?<![A-Za-z])[A-Z][a-z]{1,2}[A-Z]{1,3}(?=[A-Z][a-z]|[^A-Za-z]|$)")


def words(*parts: str) -> str:
    """Return a name in lower case with single underscores: layer_norm of LayerNorm, vit_block of ViTBlock."""
    text = _MIXED.sub(lambda found: found[0].capitalize(), "_".join(parts))
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    text = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return text if text[:1].isalpha() else f"n{text}" if text else "value"


def variable_of(node: fx.Node) -> str:
    """Return the variable that a node's value was first assigned to; empty if there is none."""
    base = re.sub(r"_\d+$", "", node.name).strip("_")
    stack = node.meta.get("source_fn_stack") or [("", None)]
    if base in (name_of(node).strip("_"), re.sub(r"_\d+$", "", str(stack[-1][0])).strip("_")):
        return ""
    function = patterns.op_of_function(node.target) if node.op == "call_function" else None
    return "" if function is not None and base == function.name else words(base)


def _inner(node: fx.Node) -> fx.Node | None:
    """Return the only node that a call reads, or what a view is of."""
    if _is_view(node):
        first = node.args[0] if node.args else None
        return first if isinstance(first, fx.Node) else None
    read = node.all_input_nodes
    return read[0] if len(read) == 1 and node.op != "output" else None


def _is_view(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and name_of(node) in patterns.VIEWS
