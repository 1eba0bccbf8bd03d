"""Writes the chains of a spec as one Python file."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusegen import render, spec
from fusegen.base.activity import doing
from fusegen.base.errors import UserError
from fusegen.chain import Chains, derive_all
from fusegen.render.files import context_of, environment
from fusegen.render.module import helpers_in
from fusegen.render.package_module import contexts_of, method_text, original_lines
from fusegen.toolchain import tuned
from fusegen.tools.single_file.cpp_parts import cpp_parts, shared_kernels, shared_sources
from fusegen.tools.single_file.example_sizes import Example
from fusegen.tools.single_file.fitting_example import Original, fitting_example
from fusegen.tools.single_file.python_parts import python_parts

__all__ = ["single_file"]

#: What the file imports itself.
_IMPORTS = (
    "import functools",
    "import platform",
    "import re",
    "from typing import Any",
    "import torch",
    "import torch.utils.cpp_extension",
    "from torch import Tensor, nn",
)
_ALONE = "fusegen.runtime.alone"
#: An operator that binding.cpp has for all packages.
_CHANNELS_LAST = "channels_last(Tensor x) -> Tensor"
#: A function of kernel.cu that there is for each dtype.
_ENTRY_POINT = re.compile(r"^template <>\n(?:(?!\}).*\n)*\}\n\n?", re.MULTILINE)


def single_file(path: Path, dtypes: Iterable[str], sizes: Mapping[str, int]) -> str:
    """Return the text of the file for a spec.

    Args:
        path: the spec.
        dtypes: what its kernels are compiled for.
        sizes: of the example; see `known_sizes`.

    Raises:
        SpecError: where the spec is wrong.
        UserError: if a size of the example is unknown, or does not fit.
    """
    chains = derive_all(spec.load(path))
    if chains.spec.mode != "both":
        raise UserError(f"{path}: a single file runs in both modes; leave out `mode:`")
    files = render.render(chains, tuned.read(path))
    return _text(chains, files, tuple(dtypes), sizes)


def _text(
    chains: Chains, files: Mapping[str, str], dtypes: tuple[str, ...], sizes: Mapping[str, int]
) -> str:
    shared = context_of(chains)
    in_torch = original_lines(chains)
    own, context = contexts_of(chains, {**shared, "alone": True, "pools": False})
    entries = "".join(_ENTRY_POINT.findall(files["kernel.cu"])).rstrip() + "\n"
    entries = entries.replace("Launch>(", "Launch, FUSEGEN_STORED>(")
    package = shared["namespace"]
    given = {**files, "kernel.cu": _ENTRY_POINT.sub("", files["kernel.cu"])}
    units = ("element.h", "kernel.h", "form.h", "kernel.cpp", "binding.cpp", "kernel.cu")
    sources = cpp_parts(given, [*units, *shared_sources(), *shared_kernels()])
    sources = {name: sources[name] for name in units} | sources
    wanted = [(_ALONE, name) for name in ("Activation", "Chain", "Mode", "Operand", "Operator")]
    helpers = dict.fromkeys([*helpers_in(in_torch), *context["helpers"]])
    wanted += [("fusegen.runtime.steps", name) for name in helpers]
    wanted += [("fusegen.runtime.submodules", name) for name in context["submodule_helpers"]]
    wanted += [("fusegen.runtime.rearranged", name) for name in context["rearranging"]]
    converts = context["reading"]
    if converts:
        wanted.append(("fusegen.runtime.memory_format", "in_memory_format"))
        wanted.append(("fusegen.runtime.conversion", "offer_converter"))
    if context["tracked"]:
        wanted.append(("fusegen.runtime.averages", "batch_weight"))
    parts = python_parts(wanted)
    context |= {
        "converts": converts,
        "order": chains.spec.order,
        "source_name": chains.spec.path.name if chains.spec.path else f"{chains.spec.name}.yaml",
        "digest": hashlib.sha256("".join(files.values()).encode()).hexdigest()[:12],
        "formulas": shared["chain"],
        "imports": _sorted([*_IMPORTS, *parts.imports]),
        "in_torch": in_torch,
        "python": list(parts.texts.values()),
        "schemas": [*(op.schema for op in shared["operators"]), _CHANNELS_LAST],  # type: ignore[attr-defined]
        "compiled_dtypes": dtypes,
        "shared": tuple(shared_sources()),
        "shared_kernels": tuple(shared_kernels()),
        "sources": sources,
        "entry_points": f"namespace {package} {{\n\n{entries}\n}}  // namespace {package}\n",
    }

    def texts(template: str) -> list[str]:
        return [environment().get_template(template).render(each).rstrip("\n") for each in own]

    context |= {
        "chain_texts": texts("module/chains.py.j2"),
        "function_texts": texts("module/function.py.j2"),
        "method_texts": [method_text(environment(), each) for each in own],
    }
    doing("rendering")

    def text_with(example: Example) -> str:
        return (
            environment()
            .get_template("single_file.py.j2")
            .render(
                context
                | {
                    "init_inputs": example.arguments,
                    "example_inputs": example.inputs,
                    "constant_inputs": example.constant,
                }
            )
        )

    def original_of(example: Example) -> Original:
        found: dict[str, Any] = {"__name__": chains.spec.name}
        exec(text_with(example), found)  # noqa: S102 # its definitions; nothing is compiled
        original: Original = found["Model"]
        return original

    text = text_with(fitting_example(chains, sizes, original_of))
    return re.sub(r"\n{4,}", "\n\n\n", re.sub(r"[ \t]+\n", "\n", text))


def _sorted(imports: Iterable[str]) -> list[str]:
    """Return import statements without repetition: the standard library first, then torch."""
    plain: set[str] = set()
    names: dict[str, set[str]] = {}
    for line in imports:
        (node,) = ast.parse(line).body
        if isinstance(node, ast.ImportFrom):
            said = {f"{a.name} as {a.asname}" if a.asname else a.name for a in node.names}
            names.setdefault(str(node.module), set()).update(said)
        else:
            plain.add(line)
    lines = sorted(plain)
    lines += [f"from {m} import {', '.join(sorted(n))}" for m, n in sorted(names.items())]
    torchs = [line for line in lines if line.split()[1].startswith("torch")]
    return [*(line for line in lines if line not in torchs), "", *torchs]
