"""Words of torch that are not ops of a chain, and what their author most likely meant."""

from __future__ import annotations

import re
from difflib import get_close_matches

from fusegen.ops import aliases, registry

__all__ = ["unknown_op"]

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
    "a chain starts from one product, and can only start from it: put linear, bmm or a convolution "
    "first, or call it in torch"
)
_BLOCK = "it consists of several chains: write one for the steps between its products"
#: torch's functions of a window of elements.
_WINDOWED = re.compile(
    "pool([123]d)?$|fold$|interpolate$|^upsample|pad([123]d)?$|pixel(un)?shuffle$"
)
#: Poolings of the whole image, each with the equal op.
_ADAPTIVE = re.compile("(?:adaptive|global)(avg|max)pool([123])d$")
#: Words without capitals and underscores, each with what to do instead.
_MEANT = {
    **dict.fromkeys(
        """view reshape permute transpose t mt swapaxes swapdims movedim flatten unflatten squeeze
        unsqueeze expand expandas repeat repeatinterleave tile contiguous flip roll rot90 narrow select
        chunk split tensorsplit unbind gather take takealongdim indexselect scatter sort topk argsort
        diagonal tril triu rearrange identity clone detach to float half bfloat16 double""".split(),  # noqa: SIM905
        _MOVES,
    ),
    **dict.fromkeys("cat concat concatenate stack hstack vstack dstack".split(), _JOINS),  # noqa: SIM905
    **dict.fromkeys(
        "matmul mm mv dot addmm baddbmm einsum inner outer bilinear embedding".split(),  # noqa: SIM905
        _PRODUCT,
    ),
    **dict.fromkeys(
        """multiheadattention scaleddotproductattention transformer transformerencoderlayer lstm gru
        rnn sequential""".split(),  # noqa: SIM905
        _BLOCK,
    ),
    "argmax": "it has no gradient and is no number: call torch.argmax on what the chain returns",
    "argmin": "it has no gradient and is no number: call torch.argmin on what the chain returns",
    "cumsum": "it needs every element before it, so it stays with torch: end the chain before it",
    "dropout1d": "it drops whole channels, so it stays with torch; dropout drops elements",
    "dropout2d": "it drops whole channels, so it stays with torch; dropout drops elements",
    "dropout3d": "it drops whole channels, so it stays with torch; dropout drops elements",
    "prod": "write the factors: - mul, or a formula",
    "bceloss": "it loses digits; use binary_cross_entropy_with_logits on what comes before the sigmoid",
    "binarycrossentropy": "it loses digits; use binary_cross_entropy_with_logits before the sigmoid",
    "formula": 'an inline formula is - expr: "x * sigmoid(x)"',
    "lambda": 'an inline formula is - expr: "x * sigmoid(x)"',
}
#: Names of torch's modules and operators whose op has another name.
_OTHER_NAMES = {
    **{"bcewithlogits": "binary_cross_entropy_with_logits", "power": "pow", "negative": "neg"},
    **{"truediv": "div"},
    **{"fullyconnected": "linear", "dense": "linear", "average": "mean", "avg": "mean"},
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
    plain = re.sub(r"[\W_]", "", word.rsplit(".", 1)[-1].lower())[:64]
    if whole := _ADAPTIVE.fullmatch(plain):
        op = "mean" if whole[1] == "avg" else "amax"
        dims = list(range(2, 2 + int(whole[2])))
        return (
            f"{shown} is no op: to the size 1 it is - {op}: {{dim: {dims}, keepdim: true}}; to another "
            "size it looks at windows, so it stays with torch"
        )
    if _WINDOWED.search(plain):
        return f"{shown} is no op: {_WINDOWS}"
    if plain in _MEANT:
        return f"{shown} is no op: {_MEANT[plain]}"
    known = {re.sub("_", "", name): name for name in (*registry(), *aliases(), "expr")}
    candidates = [
        plain,
        re.sub("[123]d$", "", plain),
        re.sub("(loss|layer|activation)$", "", plain),
    ]
    for candidate in candidates:
        name = known.get(candidate) or _OTHER_NAMES.get(candidate)
        if name:
            return f"unknown op {shown}; did you mean {name!r}?"
    close = get_close_matches(plain, list(known), n=1, cutoff=0.7)
    if close:
        return f"unknown op {shown}; did you mean {known[close[0]]!r}?"
    return f'unknown op {shown}: `fusegen ops` lists them, and an inline formula is - expr: "..."'
