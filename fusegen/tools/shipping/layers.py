"""The `layers` of a kernel of Hugging Face's hub: a class whose `forward` replaces that of another module.

The hub requires that such a class has no constructor, no state and no other method. The generated `Module`
has these, so its `forward` is written again as that of a class of its own. It reads the parameters and
submodules of the module that it is given.
"""

from __future__ import annotations

import ast

_LAYERS = '''"""The layer: its `forward` replaces that of a module with the same parameters and submodules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import {names}

__all__ = ["{name}"]


class {name}(nn.Module):
    """{says}"""

    can_torch_compile = True

{forward}
'''


def layer_name(package: str) -> str:
    """Return the name of a package's layer: MyAct of my_act."""
    return "".join(part[:1].upper() + part[1:] for part in package.split("_"))


def layers_code(code: str, package: str) -> str:
    """Return the text of `layers.py`.

    Args:
        code: the package's `__init__.py`.
        package: the package's name.
    """
    tree = ast.parse(code)
    module = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Module")
    methods = {n.name: n for n in module.body if isinstance(n, ast.FunctionDef)}
    forward = ast.get_source_segment(code, methods["forward"], padded=True)
    assert forward is not None
    for name in methods:  # of Module, which the module that is given does not have
        forward = forward.replace(f"self.{name}(", f"Module.{name}(self, ")
    known = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fusegen"):
            known |= {alias.name for alias in node.names}
    read = {n.id for n in ast.walk(ast.parse(forward.lstrip())) if isinstance(n, ast.Name)}
    state = {
        node.attr
        for name, method in methods.items()
        if name != "__init__"
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"
    }
    given = ", ".join(sorted(state - methods.keys()))
    says = (
        f"Reads {given} of the module that it is given." if given else "Reads its arguments alone."
    )
    return _LAYERS.format(
        names=", ".join(sorted(known & read)),
        name=layer_name(package),
        says=says,
        forward=forward,
    )
