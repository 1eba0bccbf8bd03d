"""A small spec for every op, so that each is compiled and checked by itself."""

from __future__ import annotations

from pathlib import Path

from fusegen import builder
from fusegen.freshness import write_if_different
from fusegen.ops import Op, registry

#: Attributes whose defaults would leave a branch of the formula untested.
VARIANTS: dict[str, list[str]] = {
    "gelu": ["{approximate: none}", "{approximate: tanh}"],
    "hardtanh": ["{min_val: -0.5, max_val: 1.25}"],
    "leaky_relu": ["{negative_slope: 0.1}"],
    "elu": ["{alpha: 1.5}"],
}


def tested_ops() -> list[str]:
    """Return the ops that a chain without a matmul can hold by themselves."""
    return [name for name, op in registry().items() if not (op.source or op.train_in_torch)]


def spec_text(op: Op, attributes: str) -> str:
    """Return a spec whose chain is one op, with an operand of the right kind in each place."""
    lines = []
    if op.operands:
        lines.append("operands:")
        for name, kind in op.operands.items():
            lines.append(f"  {name}: {{kind: {kind.label if kind else 'full'}}}")
        given = ", ".join(f"{name}: {name}" for name in op.operands)
        lines.append(f"chain:\n  - {op.name}: {{{given}}}")
    else:
        lines.append(f"chain:\n  - {op.name}" + (f": {attributes}" if attributes else ""))
    return "\n".join(lines) + "\n"


def names_of(op: str) -> list[str]:
    """Return the package names of an op's variants."""
    count = len(VARIANTS.get(op, [""]))
    return [f"only_{op}" + (f"_{n}" if count > 1 else "") for n in range(count)]


def build_vocabulary(folder: Path) -> Path:
    """Write and build the specs; return the folder of the packages."""
    specs = folder / "specs"
    specs.mkdir(parents=True, exist_ok=True)
    for name in tested_ops():
        for package, attributes in zip(names_of(name), VARIANTS.get(name, [""]), strict=True):
            text = spec_text(registry()[name], attributes)
            write_if_different(specs / f"{package}.yaml", text)  # atomic: other workers read it
    builder.build([specs], out=folder / "generated")
    return folder
