"""Renders a chain into the files of a generated package, through the templates."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import jinja2

from fusegen.base import paths
from fusegen.base.activity import doing
from fusegen.base.dtypes import DTYPES
from fusegen.base.version import FORMAT, __version__
from fusegen.chain import Chain, Chains, Mode
from fusegen.chain.layout import Layout
from fusegen.lower import Kernel
from fusegen.lower.kernel.gpu_form import GpuForm
from fusegen.lower.kernel.launch import choose_launch
from fusegen.lower.kernel.operand import KernelOperand
from fusegen.lower.kernel.results import Result
from fusegen.render.description import Description
from fusegen.render.module_names import check_hidden
from fusegen.render.package_module import module_text
from fusegen.spec.model import OPERATORS

#: The template of each file of a package.
_FILES = {
    "element.h": "element.h.j2",
    "kernel.h": "kernel.h.j2",
    "form.h": "form.h.j2",
    "kernel.cpp": "cpu/kernel.cpp.j2",
    "kernel.cu": "cuda/kernel.cu.j2",
    "binding.cpp": "binding.cpp.j2",
    "__init__.py": "module.py.j2",  # the last, because it holds a hash of all others
}


@dataclass(frozen=True)
class Operator:
    """One operator of the binding.

    Args:
        name: its name.
        activation: the tensor that has the activation's shape.
        kernel: the kernel that it runs, after those before it.
        dropped: the results that it does not return.
        results: the results that it returns; of several parts, the first stands for all.
        tensors: the tensor inputs that any of these kernels reads; of several parts, one.
        saved: the saved statistics that any of them reads.
        memory_format: the memory format that it accepts; see `Kernel.memory_format`.
        passed: which operator it is, such as "backward".
        layout: the rows and columns of its activation.
        schema: its schema, as torch's dispatcher reads it.
        taken_tensors, taken_numbers: its arguments, in the order of the schema.
        told: whether its last argument says which cotangents are present, a bit for each.
        flags: the names of those that its kernels ask for, with their bits.
        returned: the results that it returns, in the order of the schema.
    """

    name: str
    activation: str
    kernel: Kernel
    dropped: tuple[Result, ...]
    results: tuple[Result, ...]
    passed: str
    layout: Layout
    tensors: tuple[KernelOperand, ...]
    saved: tuple[KernelOperand, ...]
    memory_format: str
    schema: str
    taken_tensors: tuple[str, ...]
    taken_numbers: tuple[str, ...]
    told: bool
    flags: Mapping[str, int]
    returned: tuple[str, ...]

    @property
    def grouped(self) -> bool:
        """Whether it takes the number of groups into which the channels are split."""
        return self.layout.groups is not None


def render(
    derived: Chain | Chains, tuned: Mapping[str, Mapping[str, int]] | None = None
) -> dict[str, str]:
    """Return the text of each file of a package, formatted, by file name.

    Args:
        derived: what to render.
        tuned: launch parameters by operator and name; those of the spec override them.
    """
    chain = derived if isinstance(derived, Chains) else Chains(derived.spec, (derived,))
    shared = context_of(chain, tuned)
    files: dict[str, str] = {}
    doing("rendering")
    for file, template in _FILES.items():
        comment = "#" if file.endswith(".py") else "//"
        context: dict[str, object] = {**shared, "banner": _banner(chain, comment)}
        if file.endswith(".py"):
            everything = [*files.values(), module_text(environment(), chain, context, "")]
            made_of = hashlib.sha256("".join(everything).encode()).hexdigest()[:12]
            text = module_text(environment(), chain, context, made_of)
            check_hidden(chain, text)
            files[file] = text
        else:
            files[file] = formatted(environment().get_template(template).render(context))
    return files


def context_of(
    chain: Chain | Chains, tuned: Mapping[str, Mapping[str, int]] | None = None
) -> dict[str, object]:
    """Return what the templates of all files of a package know of its chain; see `render`."""
    launch = {
        name: {**(tuned or {}).get(name, {}), **chain.spec.launch.get(name, {})}
        for name in OPERATORS
    }
    operators = [
        _operator(mode, order, segment.layout)
        for segment in chain.segments
        for mode in segment.modes
        for order in range(len(mode.kernels))
    ]
    values = [
        _operator(mode, 0, segment.layout, value_alone=True)
        for segment in chain.segments
        for mode in segment.modes
        if mode.kernels[0].droppable
    ]
    kernels = [part for op in operators for part in op.kernel.parts]
    name = chain.spec.name
    return {
        "name": name,
        "version": __version__,
        "format": FORMAT,
        "namespace": f"fusegen_{name}",
        "chain": _chain_lines(chain),
        "kernels": kernels,
        "exact": bool(chain.spec.float32),
        "cpu_forms": sorted({form for k in kernels for form in Description(k).forms}),
        "dtypes": chain.spec.dtypes if len(chain.spec.dtypes) < len(DTYPES) else (),
        "pools": any(step.op and step.op.pools for step in chain.spec.steps),
        "gpu_forms": sorted({form for k in kernels for form in GpuForm(k).forms}),
        "operators": operators + values,
        "launches": {
            part.name: choose_launch(part, launch.get(op.passed, {}))
            for op in operators
            for part in op.kernel.parts
        },
        "layouts": {part.name: op.layout for op in operators for part in op.kernel.parts},
    }


@cache
def environment() -> jinja2.Environment:
    """Return jinja2's environment with our templates, in which an undefined name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    made.globals["gpu_form"] = GpuForm
    made.globals["describe"] = Description
    return made


def _banner(chain: Chains, comment: str) -> str:
    """Return the comment at the head of each generated file."""
    digest = hashlib.sha256(chain.spec.text.encode()).hexdigest()[:12]
    source = _in_comment(chain.spec.path.name if chain.spec.path else f"{chain.spec.name}.yaml")
    lines = [
        f"Generated by fusegen {__version__} from {source} (sha256 {digest}).",
        "Do not edit: change the spec and run `fusegen build`.",
    ]
    return "\n".join(f"{comment} {line}" for line in lines)


def _in_comment(text: str) -> str:
    """Return a file's name in a form that is safe in a comment, with '?' for characters that could end it.

    A file's name may contain anything but a slash: a newline, bytes that are not UTF-8, or a backslash that
    would join the next line to the comment.
    """
    return re.sub(r"[^A-Za-z0-9_.,+=@ -]", "?", text)


def _chain_lines(chain: Chain | Chains) -> list[str]:
    """Return one line per step: its text and its op's summary."""
    lines = []
    for step in chain.spec.steps:
        summary = f"  {step.op.summary}" if step.op else ""
        lines.append(f"{step.text}{summary}")
    return lines


def _operator(mode: Mode, order: int, layout: Layout, *, value_alone: bool = False) -> Operator:
    """Return an operator as the binding declares it: tensors, saved statistics, seed, attributes, groups, and
    which cotangents are present.

    With `value_alone`, this is the forward pass for a call without derivatives.
    """
    program, kernel = mode.programs[order], mode.kernels[order]
    grouped = layout.groups is not None
    tensors = list(program.tensors)
    if order:
        tensors += [v.name for v in mode.saved]
    tensors += ["seed"] if mode.random else []
    numbers = [i.name for i in program.inputs if i.source == "attribute"]
    results = [*program.returned, *(() if value_alone else (v.name for v in program.saved))]
    name = f"{kernel.name}_value" if value_alone else kernel.name
    typed = [f"Tensor {t}" for t in tensors] + [f"float {n}" for n in numbers]
    typed += ["int groups"] if grouped else []
    typed += ["int present"] if order and mode.told else []
    flags = {
        i.name: program.optional.index(i.tensor) for i in program.inputs if i.source == "presence"
    }
    together = ", ".join(["Tensor"] * len(results))
    returned = together if len(results) == 1 else f"({together})"
    dropped = kernel.droppable if value_alone else ()
    written = [r for part in kernel.parts for r in part.results if r not in dropped]
    return Operator(
        name=name,
        activation=tensors[0],
        kernel=kernel,
        dropped=dropped,
        results=tuple(r for r in written if not r.access.place),
        tensors=tuple({f.tensor: f for part in kernel.parts for f in part.inputs.tensors}.values()),
        memory_format=mode.memory_formats[order],
        saved=tuple(
            dict.fromkeys(f for part in kernel.parts for f in part.inputs.saved if not f.handed)
        ),
        passed=OPERATORS[order],
        layout=layout,
        schema=f"{name}({', '.join(typed)}) -> {returned}",
        taken_tensors=tuple(tensors),
        taken_numbers=tuple(numbers),
        told=bool(order) and mode.told,
        flags=flags,
        returned=tuple(results),
    )


_STYLE = (
    "{BasedOnStyle: Google, ColumnLimit: 100, AllowShortFunctionsOnASingleLine: Empty, "
    "SortIncludes: false, AllowShortLoopsOnASingleLine: true, IndentPPDirectives: None, "
    "CommentPragmas: '^ {2,}'}"  # indented lines are lists, not prose: one line per node
)


def formatted(text: str) -> str:
    """Return C++ text formatted by clang-format.

    Its version is pinned, so the result is the same everywhere.
    """
    from clang_format import get_executable

    text = re.sub(r",\s*\}", " }", text)  # templates end each item of a list with a comma
    done = subprocess.run(
        [get_executable("clang-format"), f"--style={_STYLE}", "--assume-filename=x.cpp"],
        input=re.sub(r"\n{3,}", "\n\n", text),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout
