"""Specs: a YAML file -> `Spec`. docs/specs.md describes the language.

`yaml.py` turns the text into data, `sections.py` checks its sections, and `steps.py` reads the chain step by
step. Each mistake is one `SpecError` with file and line.
"""

from __future__ import annotations

from pathlib import Path

from fusegen.base.dtypes import DTYPES
from fusegen.base.errors import SpecError
from fusegen.spec.code_names import code_names
from fusegen.spec.cut import START
from fusegen.spec.empty import check_given
from fusegen.spec.indexes import check_indexes
from fusegen.spec.model import Argument, Operand, Ref, Spec, Step
from fusegen.spec.names import package_problem
from fusegen.spec.outputs import outputs
from fusegen.spec.sections import sections
from fusegen.spec.steps import steps
from fusegen.spec.unused import check_used
from fusegen.spec.yaml import read

__all__ = ["Argument", "Operand", "Ref", "Spec", "Step", "load", "parse"]


def load(path: Path) -> Spec:
    """Return the spec in a file; its name is the file's stem.

    Raises:
        SpecError: if the file cannot be read, or has a mistake.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", path) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError("is not UTF-8; save it as UTF-8", path, line) from None
    return parse(text, path.stem, path)


def parse(text: str, name: str, path: Path | None = None) -> Spec:
    """Return the spec in a text.

    Args:
        text: the YAML.
        name: the name of the package to generate.
        path: the file the text came from, for messages.

    Raises:
        SpecError: for the first mistake.
    """
    wrong = package_problem(name)
    if wrong:
        raise SpecError(wrong, path)
    document = read(text, path)
    check_given(document)
    model, arguments, operands = sections(document)
    chain, operands, dims, taken_apart = steps(document, arguments, operands, model.dims)
    returned, wide = outputs(document, model.outputs, chain)
    check_used(document, chain, returned)
    check_indexes(document, chain, wide)
    return Spec(
        name=name,
        path=path,
        text=text,
        description=model.description,
        arguments=arguments,
        operands=operands,
        steps=chain,
        dims=dims,
        order=model.order,
        launch=model.launch,
        dtypes=tuple(dtype for dtype in DTYPES if dtype in model.dtypes),
        mode=model.mode,
        outputs=returned,
        float32=wide,
        taken_apart=taken_apart,
        codes=code_names(
            [
                *(a.name for a in arguments),
                *(o.name for o in operands),
                *(part for step in chain for part in step.parts),
            ],
            [step for step in chain if step.op is not START],
        ),
    )
