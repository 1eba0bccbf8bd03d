"""A small spec for every op, so that each is compiled and checked by itself."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path

from random_programs.build import EVERY, Dtypes, build_specs, build_together
from torch import Tensor

from fusegen.ops import Op, registry
from fusegen.program import Kind

__all__ = [
    "ABOVE_1",
    "ALL",
    "BELOW_1",
    "build_for_devices",
    "build_vocabulary",
    "chain_text",
    "lone_ops",
    "names_of",
    "packages",
    "spec_text",
    "specs_of",
    "vocabulary_dtypes",
    "where_defined",
]

#: What each op's step is given beside its operands, where the defaults leave a branch of the formula
#: untested or an attribute must be given: a package for each.
VARIANTS: dict[str, list[str]] = {
    "add": ["", "alpha: 2.5"],
    "celu": ["alpha: 1.3"],
    "clamp": ["min: -0.5", "max: 0.75", "min: -0.5, max: 0.75"],
    "elu": ["alpha: 1.5"],
    "gelu": ["approximate: none", "approximate: tanh"],
    "geglu": ["approximate: none", "approximate: tanh"],
    "hardtanh": ["min_val: -0.5, max_val: 1.25"],
    "leaky_relu": ["negative_slope: 0.1"],
    "rsub": ["", "alpha: 2.5"],
    "softplus": ["", "beta: 3, threshold: 2"],
    "sub": ["", "alpha: 2.5"],
    "swish": ["", "beta: 1.5"],
    "amax": ["dim: -1", "dim: -1, keepdim: true"],
    "amin": ["dim: -1"],
    "argmax": ["dim: -1", "dim: 1, keepdim: true"],
    "argmin": ["dim: -1"],
    "cross_entropy": [
        *("", "reduction: none, ignore_index: 2", "reduction: sum, label_smoothing: 0.1"),
        "label_smoothing: 0.2, ignore_index: 1",
    ],
    "huber_loss": ["delta: 0.7", "delta: 0.7, reduction: none"],
    "kl_div": ["", "reduction: batchmean, log_target: true"],
    "l1_loss": ["", "reduction: sum"],
    "logsumexp": ["dim: -1", "dim: 1, keepdim: true"],
    "masked_fill": ["value: -0.75"],
    "max": ["dim: -1"],
    "mean": ["", "dim: -1, keepdim: true"],
    "min": ["dim: 1"],
    "mse_loss": ["", "reduction: none", "reduction: sum"],
    "nll_loss": ["", "reduction: none", "reduction: sum"],
    "norm": [
        *(
            "dim: -1",
            "dim: -1, p: 1, keepdim: true",
            "dim: -1, p: 3",
            "dim: -1, p: 1.5",
            "dim: -1, p: inf",
        ),
        *("dim: -1, p: -inf", "dim: -1, p: 0", "p: 1"),
    ],
    "normalize": ["", "p: 1, eps: 0.5"],
    "rms_norm": ["eps: 0.01"],
    "round": ["", "decimals: 2"],
    "smooth_l1_loss": ["", "beta: 0.3, reduction: sum", "beta: 0, reduction: none"],
    "std": ["dim: -1", "dim: -1, correction: 0, keepdim: true"],
    "sum": ["", "dim: -1", "dim: -1, keepdim: true"],
    "threshold": ["threshold: 0.1, value: 20"],
    "var": ["dim: -1", "dim: -1, correction: 0"],
}

#: Numbers in an operand's place.
NUMBERS: dict[str, list[str]] = {
    "pow": ["exponent: 3", "exponent: 0.5", "exponent: -1.5", "exponent: 2.2"],
    "maximum": ["other: 0.25"],
}

#: Ops that are NaN below 0, so are tested above.
POSITIVE = ("log", "log1p", "log2", "log10", "pow", "rsqrt", "sqrt")
#: Ops that are NaN beyond -1 and 1, so are tested between, and one that is below 1.
BELOW_1, ABOVE_1 = ("acos", "asin", "atanh"), ("acosh",)

#: Ops whose packages other tests call with float32.
IN_FLOAT32 = (
    *("log_sigmoid", "sigmoid", "swish", "quick_gelu", "gelu", "tanh", "softplus", "mish"),
    *("softsign", "tanhshrink", "elu", "selu", "celu", "erf", "expm1", "exp"),
    *("binary_cross_entropy_with_logits", "nll_loss", "dropout", "alpha_dropout"),
    *("softmax", "log_softmax", "layer_norm", "rms_norm"),
)

#: Chains that go on after a reduction, mask a softmax, or end in a loss.
CHAINS = {
    "reduced_twice": """
        operands: {bias: col, factor: row}
        chain:
          - add: bias
          - sum: {dim: -1, keepdim: true}
          - logsumexp: {dim: -1, keepdim: true}
          - mul: factor
          - mish
          - expr: "x - mean(x) + 2 * x"
        """,
    "reduced_and_dropped": """
        operands: {bias: col, factor: row, scale: scalar}
        chain:
          - mul: bias
          - max: {dim: 1}
          - mul: factor
          - tanh
          - add: scale
        """,
    "broadcast_again": """
        operands: {residual: full}
        chain:
          - mean: {dim: -1, keepdim: true}
          - mul: residual
          - gelu
        """,
    "masked_softmax": """
        operands: {mask: full}
        chain:
          - div: 0.7
          - add: mask
          - softmax
        """,
    "filled_softmax": """
        operands: {mask: {kind: full, dtype: bool}, hidden: {kind: col, dtype: bool}}
        chain:
          - masked_fill: {mask: mask, value: -inf}
          - expr: "where(hidden, -30, 2 * x)"
          - softmax
        """,
    "causal_softmax": """
        operands: {position: {kind: row, dtype: int64}}
        chain:
          - mul: 0.125
          - causal_mask: position
          - softmax
        """,
    "loss_after_an_activation": """
        operands: {target: {kind: row, dtype: int64}, bias: col}
        chain:
          - add: bias
          - gelu
          - cross_entropy: {target: target}
          - mul: 0.5
        """,
    "loss_of_dropped_logits": """
        operands: {target: {kind: row, dtype: int64}, weight: col}
        chain:
          - dropout: 0.3
          - cross_entropy: {target: target, weight: weight}
        """,
    "loss_after_a_batch_norm": """
        arguments: {features: int}
        operands: {target: {kind: row, dtype: int64}}
        chain:
          - batch_norm: {name: bn}
          - cross_entropy: {target: target, reduction: none, ignore_index: 1}
        """,
    "row_functions": """
        operands: {bias: col, eps: scalar}
        chain:
          - add: bias
          - expr: "x / sqrt(mean(x**2) + eps)"
          - expr: "softmax(x) + log_softmax(x) * std(x) + x / norm(x) - logsumexp(x)"
          - expr: "(x - min(x)) / (max(x) - min(x)) + amax(x) * amin(x) + var(x)"
        """,
    "row_functions_alone": """
        chain:
          - expr: "x * sigmoid(norm(x))"
          - expr: "std(x)"
          - gelu
        """,
    "prelu_by_channel": """
        arguments: {num_parameters: int}
        operands: {bias: col}
        chain:
          - add: bias
          - prelu
          - softmax: {dim: 1}
        """,
    "squared_total": """
        operands: {target: full}
        chain:
          - mse_loss: target
          - sqrt
        order: 1
        """,
}


def where_defined(op: str, x: Tensor) -> Tensor:
    """Return random numbers moved to where an op has a value."""
    if op in POSITIVE:
        return x.abs() + 0.1
    if op in ABOVE_1:
        return x.abs() + 1.1
    return x.tanh() * 0.96875 if op in BELOW_1 else x


def lone_ops() -> list[str]:
    """Return the ops that a chain without a source can hold by themselves, on dims of any size."""
    return [
        name
        for name, op in registry().items()
        if not (op.source or op.trained or op.over == "inner" or op.groups or op.paired)
    ]


def spec_text(op: Op, given: str, *, numbers: bool = False, whole: bool = True) -> str:
    """Return a spec whose chain is one op, with an operand of the right kind in each place.

    Args:
        op: the op.
        given: its attributes, as YAML.
        numbers: whether these are its operands too.
        whole: whether it gets its optional operands.
    """
    held = op.submodule.operands if op.submodule else ()
    left_out = () if whole else op.optional
    operands = {n: k for n, k in op.operands.items() if n not in (*held, *left_out) and not numbers}
    lines = []
    if operands:
        lines.append("operands:")
        for place, (name, kind) in enumerate(operands.items()):
            free = (Kind.FULL, Kind.COL, Kind.SCALAR)[place % 3]
            label = (free if kind is None else kind).label
            if name == op.classes:
                label = "row, dtype: int64"
            if name in op.conditions:
                label = f"{label}, dtype: bool"
            lines.append(f"  the_{name}: {{kind: {label}}}")
    together = ", ".join(
        [*(f"{name}: the_{name}" for name in operands), *([given] if given else [])]
    )
    lines.append(f"chain:\n  - {op.name}" + (f": {{{together}}}" if together else ""))
    return "\n".join(lines) + "\n"


def specs_of(name: str) -> dict[str, str]:
    """Return the packages of an op: the text of each one's spec by its name."""
    op = registry()[name]
    texts = [spec_text(op, given) for given in VARIANTS.get(name, [""])]
    if op.optional:
        texts.append(spec_text(op, VARIANTS.get(name, [""])[0], whole=False))
    texts += [spec_text(op, given, numbers=True) for given in NUMBERS.get(name, [])]
    return {f"only_{name}_{n}": text for n, text in enumerate(texts)}


def chain_text(name: str) -> str:
    """Return the spec of one of `CHAINS`."""
    text = textwrap.dedent(CHAINS[name])
    return text if "order" in text else f"order: 2\n{text}"


def names_of(op: str) -> list[str]:
    """Return the package names of an op's variants."""
    return list(specs_of(op))


def packages(op: str) -> list[str]:
    """Return the packages of an op; a chain is its own."""
    return [op] if op in CHAINS else names_of(op)


def build_for_devices(
    folder: Path, texts: Mapping[str, str], dtypes: Dtypes = ("float64", "float32")
) -> None:
    """Write specs into a folder and build their packages for each device of this machine.

    Args:
        folder: where the specs and the packages go.
        texts: the specs' texts, by the packages' names.
        dtypes: the dtypes that kernels are compiled for where there is no GPU.
    """
    (folder / "specs").mkdir(parents=True)
    for name, text in texts.items():
        (folder / "specs" / f"{name}.yaml").write_text(text)
    paths = [folder / "specs" / f"{name}.yaml" for name in texts]
    build_specs(paths, folder / "generated", dtypes=dtypes)


def vocabulary_texts() -> dict[str, str]:
    """Return the specs of all ops that can stand alone, and `CHAINS`, by the names of their packages."""
    texts = {package: text for name in lone_ops() for package, text in specs_of(name).items()}
    return texts | {name: chain_text(name) for name in CHAINS}


@functools.cache
def vocabulary_dtypes() -> dict[str, tuple[str, ...]]:
    """Return the dtypes of each package of the vocabulary: float64, and in turn float32 or one of 16 bits.

    What is computed of 16 bits is what is computed of float32. Element functions are compiled for all dtypes
    elsewhere (elementwise.py).
    """
    needed = {name for op in IN_FLOAT32 for name in names_of(op)}
    needed |= {names_of(op)[0] for op in lone_ops()}  # each op has float32 somewhere
    turns = ("bfloat16", "float32", "float16", "float32")
    others = sorted(set(vocabulary_texts()) - needed)
    dtypes = {package: ("float64", turns[n % 4]) for n, package in enumerate(others)}
    dtypes |= dict.fromkeys(needed, ("float64", "float32"))
    return dtypes | {"only_cross_entropy_1": EVERY}  # test_take.py loads elements by an index


def build_vocabulary(folder: Path, ops: Collection[str]) -> None:
    """Write the specs of some of `ALL` into a folder, and build them, for the CPU."""
    named = {package for op in ops for package in packages(op)}
    texts = {package: text for package, text in vocabulary_texts().items() if package in named}
    build_together(folder, texts, together=20, dtypes=vocabulary_dtypes())


#: The ops that can stand alone, and the chains.
ALL = [*lone_ops(), *CHAINS]
