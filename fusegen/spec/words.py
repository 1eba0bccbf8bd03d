"""Words of torch that are not ops of a chain, and what their author most likely meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from fusegen.base.errors import nearest
from fusegen.ops import aliases, find, registry

__all__ = ["FORMULAS", "meant_op", "unknown_function", "unknown_op"]

_MOVES = (
    "it moves elements and computes nothing, so it stays with torch: end the chain before it, "
    "or give the Module what it returns"
)
_JOINS = "a chain goes on with one tensor: call it in torch, and give its result to the Module"
_WINDOWS = (
    "it looks at a window of elements, so it stays with torch: end the chain before it, and start "
    "another one after it if there is more to fuse"
)
_PRODUCT = (
    "the products of a spec are linear, matmul, bmm and convolutions; call others in torch, and give the "
    "result to the Module"
)
_ATOM = (
    "no chain has this function: leave it to torch, before or after the chain, or declare it as an atom "
    "(docs/adding_an_op.md)"
)
_BLOCK = "it consists of several chains: write one for the steps between its products"
_PARTS = 'a formula names the parts of x: - expr: {formula: "a * sigmoid(b) + c", parts: [a, b, c]}'
_CELL = "write a cell as two linears and formulas that name their parts: docs/specs.md has that of an LSTM"
#: torch's functions of a window of elements.
_WINDOWED = re.compile(
    "pool([123]d)?$|fold$|interpolate$|^upsample|pad([123]d)?$|pixel(un)?shuffle$"
)
#: Poolings of the whole image, each with the equal op.
_GLOBAL = re.compile("global(avg|max)pool([123])d$")
#: Words without capitals and underscores, each with what to do instead.
_MEANT = {
    **dict.fromkeys(
        """view reshape permute transpose t mt swapaxes swapdims movedim unflatten squeeze
        unsqueeze expand expandas repeat repeatinterleave tile contiguous flip roll rot90 narrow select
        gather take takealongdim indexselect scatter sort topk argsort
        diagonal tril triu rearrange identity clone to float half bfloat16 double""".split(),  # noqa: SIM905
        _MOVES,
    ),
    **dict.fromkeys(("chunk", "split", "tensorsplit", "unbind", "parts", "halves"), _PARTS),
    **dict.fromkeys(("lstm", "gru", "lstmcell", "grucell"), _CELL),
    **dict.fromkeys("cat concat concatenate stack hstack vstack dstack".split(), _JOINS),  # noqa: SIM905
    **dict.fromkeys(
        "mv dot addmm baddbmm einsum inner outer bilinear embedding".split(),  # noqa: SIM905
        _PRODUCT,
    ),
    **dict.fromkeys(
        """multiheadattention scaleddotproductattention attention attn selfattention transformer
        transformerencoderlayer mlp rnn sequential""".split(),  # noqa: SIM905
        _BLOCK,
    ),
    **dict.fromkeys(
        "digamma erfinv fmod i0 lgamma mod remainder rrelu sinc".split(),  # noqa: SIM905
        _ATOM,
    ),
    "floordivide": "divide, then floor: - div: ..., and - floor",
    **dict.fromkeys(
        "eq ne gt lt ge le greater less isnan isinf isfinite".split(),  # noqa: SIM905
        'a comparison is part of a formula: - expr: "where(x > 0, x, 0)"',
    ),
    **dict.fromkeys(
        "act activation nonlinearity".split(),  # noqa: SIM905
        "name the function itself, such as relu, gelu or silu",
    ),
    "cumsum": "it needs every element before it, so it stays with torch: end the chain before it",
    **dict.fromkeys(
        "median mode quantile nanmedian kthvalue".split(),  # noqa: SIM905
        "it sorts, so it stays with torch: end the chain before it",
    ),
    "prod": "write the factors: - mul, or a formula",
    "bceloss": "it loses digits; use binary_cross_entropy_with_logits on what comes before the sigmoid",
    "binarycrossentropy": "it loses digits; use binary_cross_entropy_with_logits before the sigmoid",
    "bce": "it loses digits; use binary_cross_entropy_with_logits on what comes before the sigmoid",
    "formula": 'an inline formula is - expr: "x * sigmoid(x)"',
    "lambda": 'an inline formula is - expr: "x * sigmoid(x)"',
}
#: Functions that have no op of their own, each as a formula.
FORMULAS = {
    "logit": "log(x) - log1p(-x)",
    **dict.fromkeys(("relu2", "squaredrelu", "relusquared"), "relu(x)**2"),
    "detach": "detach(x)",
}
#: Names of the form of gelu that has a tanh in it.
_GELU_OF_TANH = ("gelutanh", "gelunew", "gelufast", "gelupytorchtanh", "fastgelu", "geluapprox")
#: Names of torch's modules and operators whose op has another name.
_OTHER_NAMES = {
    **{"bcewithlogits": "binary_cross_entropy_with_logits", "power": "pow", "negative": "neg"},
    **{"truediv": "div"},
    **{"mm": "matmul", "batchmatmul": "bmm"},
    **{"fullyconnected": "linear", "dense": "linear", "fc": "linear", "gemm": "linear"},
    **{"average": "mean", "avg": "mean", "conv": "conv2d", "convolution": "conv2d"},
    **{
        "mse": "mse_loss",
        "mae": "l1_loss",
        "l1": "l1_loss",
        "ce": "cross_entropy",
        "drop": "dropout",
    },
    **{"bn": "batch_norm", "ln": "layer_norm", "gn": "group_norm", "rms": "rms_norm"},
    **{"l2norm": "normalize", "l2normalize": "normalize", "skip": "add", "shortcut": "add"},
    **{"rotary": "rope", "rotaryemb": "rope", "rotaryembedding": "rope"},
    **{
        "bias": "add",
        "biasadd": "add",
        "residual": "add",
        "clampmin": "clamp",
        "clampmax": "clamp",
    },
    **{
        "lrelu": "leaky_relu",
        "hsigmoid": "hardsigmoid",
        "hswish": "hardswish",
        "temperature": "div",
    },
}


def unknown_op(word: str) -> str:
    """Return the one-line message for a step whose word is not an op."""
    shown = repr(word[:64])
    if re.fullmatch(r"[\w.]+(\s+[\w.]+)+", word):
        return f"unknown op {shown}: each step has a line of its own, which starts with -"
    if re.search(r"[\s()+*/<>^@]", word):
        return f"unknown op {shown}; {_of_a_formula(word)}"
    plain = _plain(word)
    if whole := _GLOBAL.fullmatch(plain):
        op = "mean" if whole[1] == "avg" else "amax"
        dims = list(range(2, 2 + int(whole[2])))
        return f"{shown} is no op: write - {op}: {{dim: {dims}, keepdim: true}}, which is fused"
    if meant_op(word) is None and _WINDOWED.search(plain):
        return f"{shown} is no op: {_WINDOWS}"
    if plain in _MEANT:
        return f"{shown} is no op: {_MEANT[plain]}"
    if plain in FORMULAS:
        return f'{shown} is no op, but a formula: - expr: "{FORMULAS[plain]}"'
    if plain in _GELU_OF_TANH:
        return f"unknown op {shown}; write - gelu: {{approximate: tanh}}"
    if name := meant_op(word):
        return f"unknown op {shown}; did you mean {name!r}?"
    known = _known()
    close = get_close_matches(plain, list(known), n=1, cutoff=0.7)
    if close:
        return f"unknown op {shown}; did you mean {known[close[0]]!r}?"
    return f'unknown op {shown}: `fusegen ops` lists them, and an inline formula is - expr: "..."'


def unknown_function(name: str, functions: Iterable[str]) -> str:
    """Return the one-line message for a function that formulas lack.

    Args:
        name: the function.
        functions: those that formulas have, beside ops.
    """
    shown, plain = repr(name[:64]), _plain(name)
    if plain in FORMULAS:
        return f"unknown function {shown}: of x it is {FORMULAS[plain]}"
    if plain in _MEANT:
        return f"unknown function {shown}: {_MEANT[plain]}"
    near = nearest(name, {*functions, *registry(), *aliases()})
    if "did you mean" in near:
        return f"unknown function {shown}{near}"
    if meant := meant_op(name):
        return f"unknown function {shown}; did you mean {meant!r}?"
    # All of them are too many for a message.
    return (
        f"unknown function {shown}: a formula calls the functions of docs/specs.md, and ops "
        "(`fusegen ops`)"
    )


def meant_op(word: str) -> str | None:
    """Return the op that another spelling means, such as `nn.GELU` or `BatchNorm2d`."""
    plain, known = _plain(word), _known()
    candidates = (
        plain,
        re.sub("[123]d$", "", plain),
        re.sub("(loss|layer|activation)$", "", plain),
    )
    found = (known.get(name) or _OTHER_NAMES.get(name) for name in candidates)
    return next((name for name in found if name), None)


def _of_a_formula(word: str) -> str:
    """Return what to write instead of a step that is a formula, or a call as in Python."""
    call = re.fullmatch(r"\s*([\w.]+)\((.*)\)\s*", word)
    name = meant_op(call[1]) if call else None
    if call is None or name is None or re.search(r"\bx\b", call[2]):
        return f"an inline formula is - expr: {_quoted(word)}"
    if not call[2].strip():
        return f"did you mean {name!r}?"
    op = find(name)
    keys = re.findall(r"(\w+)\s*=", call[2]) or list(op.attributes if op is not None else ())[:1]
    settings = ", ".join(f"{key}: ..." for key in keys)
    return f"write - {name}: {{{settings}}}" if settings else f"did you mean {name!r}?"


def _quoted(word: str) -> str:
    text = word[:64] if word.isprintable() else "..."  # a message is one line
    return f"'{text}'" if '"' in text else f'"{text}"'


def _plain(word: str) -> str:
    """Return a word without capitals, underscores and the module before it."""
    return re.sub(r"[\W_]", "", word.rsplit(".", 1)[-1].lower())[:64]


def _known() -> dict[str, str]:
    return {re.sub("_", "", name): name for name in (*registry(), *aliases(), "expr")}
