"""The functions of x alone: ops, functions of formulas, and specs whose chain is pointwise in x."""

from __future__ import annotations

from pathlib import Path

from conftest import ROOT
from shared.vocabulary import lone_ops, specs_of

from fusegen.chain import Chain
from fusegen.ops import registry
from fusegen.program import Input, Map
from fusegen.spec.formula.functions import functions
from fusegen.toolchain import pipeline

#: Ops that take a number in an operand's place, and a few more whose values are worth a look.
MORE = {
    "clamp_crossed": "clamp: {min: 1, max: -1}",
    "with_number_add": "add: 0.7",
    "with_number_sub": "sub: 0.7",
    "with_number_rsub": "rsub: 0.7",
    "with_number_mul": "mul: 0.7",
    "with_number_div": "div: 0.7",
    "with_number_minimum": "minimum: 0.25",
    "with_number_pow": "pow: 2",
}


def texts() -> dict[str, str]:
    """Return the specs of all ops and formula functions that need x alone, by package."""
    found = {name: text for op in lone_ops() for name, text in specs_of(op).items()}
    found = {n: t for n, t in found.items() if "operands" not in t}
    for name, word in functions().items():
        if word.arity == 1 and word.pointwise and name != "detach":  # x itself
            found[f"formula_{name}"] = f'chain:\n  - expr: "{name}(x)"\n'
    return found | {name: f"chain:\n  - {step}\n" for name, step in MORE.items()}


def ops_alone() -> dict[str, str]:
    """Return `texts`, but for functions of formulas that are an op too: their kernels are the op's."""
    return {n: t for n, t in texts().items() if n.removeprefix("formula_") not in registry()}


def shipped() -> list[Path]:
    """Return the specs of specs/."""
    return sorted((ROOT / "specs").glob("*.yaml"))


def label(name: str, text: str) -> str:
    """Return what a table calls a spec: its step, or its name if it has several."""
    steps = text.split("chain:\n", 1)[1].strip().splitlines()
    step = steps[0].removeprefix("- ")
    return step.removeprefix("expr: ").strip('"') if len(steps) == 1 else name


def pointwise(chain: Chain) -> bool:
    """Whether a chain is a function of each element of x."""
    if len(chain.segments) > 1:
        return False
    nodes = chain.segments[0].modes[0].programs[0].nodes()
    return all(
        isinstance(node, Map) or (isinstance(node, Input) and node.name == "x") for node in nodes
    )


def written(folder: Path, order: int) -> list[Path]:
    """Write the specs into a folder, and return their files.

    Args:
        folder: where the specs go.
        order: how many derivatives each has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = {path.stem: path.read_text() for path in shipped()}
    named |= {name: f"order: {order}\n{text}" for name, text in texts().items()}
    for name, text in named.items():
        (folder / f"{name}.yaml").write_text(text)
    return [folder / f"{name}.yaml" for name in named]


def of_x_alone(spec: Path) -> bool:
    """Whether a spec's chain is pointwise in x, and has no operands."""
    chain = pipeline.derive(spec)
    return pointwise(chain) and not chain.operands
