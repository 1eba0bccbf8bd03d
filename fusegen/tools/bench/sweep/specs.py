"""Draws specs: a form of chain each, with its steps, operands and dtypes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from fusegen.tools.bench.sweep.draft import Draft, Step

_OF_ROWS = ("full", "col", "col", "col", "row", "scalar")
_OF_CHANNELS = ("full", "channel", "channel", "scalar")
_REDUCTIONS = ("mean", "amax", "amin", "logsumexp", "norm", "std", "var", "sum")
#: float16 holds no long sum.
_LONG_SUMS = ("sum",)


@dataclass(frozen=True)
class DrawnSpec:
    """A spec, and what its x may be.

    Args:
        name: of the spec and its package.
        form: the kind of chain; see `FORMS`.
        text: the spec.
        rank: the dims of x; 0 for any number, with the columns last.
        dtypes: the dtypes that it is compiled for.
        flat: whether x has two dims, rows and columns.
        least: the fewest columns, or elements after the channel, of which a step makes sense.
        even: whether x has two halves along the columns, or along the channels.
        groups: whether the channels are split into groups, by the argument `groups`.
        most_cols: the most columns.
        least_rows: the fewest rows: of one row a batch has no variance.
        broadcastable: the full operands that may be passed in a smaller shape.
    """

    name: str
    form: str
    text: str
    rank: int
    dtypes: tuple[str, ...]
    flat: bool = False
    least: int = 1
    even: bool = False
    groups: bool = False
    most_cols: int = 1 << 20
    least_rows: int = 1
    broadcastable: tuple[str, ...] = ()

    @property
    def steps(self) -> str:
        """The steps in one line."""
        return " > ".join(_in_words(step) for step in yaml.safe_load(self.text)["chain"])


#: Adds the steps of a form, and returns what x must be, as arguments of `DrawnSpec`.
_Form = Callable[[Draft], dict[str, Any]]


def _pointwise(draft: Draft) -> dict[str, Any]:
    draft.pointwise(2, 6)
    return {}


def _gate(draft: Draft) -> dict[str, Any]:
    word = draft.rng.choice(("glu", "geglu", "swiglu", "reglu"))
    halves = draft.rng.random() < 0.6
    if halves:
        draft.input = False  # it is twice as wide
        draft.add({word: {"dim": 1}} if draft.rank else word)
    else:
        draft.add({word: draft.operand("full")})
    draft.pointwise(0, 3)
    return {"even": halves}


def _softmax(draft: Draft) -> dict[str, Any]:
    draft.pointwise(0, 2)
    masked = draft.rng.random()
    if masked < 0.2:
        draft.add({"causal_mask": draft.operand("row", dtype="int64")})
    elif masked < 0.35:
        draft.add(
            {"masked_fill": {"mask": draft.operand("full", dtype="bool"), "value": -1e4}},
        )
    draft.add(draft.rng.choice(("softmax", "softmax", "log_softmax", "softmin")))
    if masked >= 0.2:  # the logarithm of 0 is in the result otherwise
        draft.pointwise(0, 2)
    return {"least": 4}


def _norm_over(draft: Draft, dim: int | list[int] | None) -> None:
    """Add a norm of rows, with or without a weight and a bias."""
    word = draft.rng.choice(("layer_norm", "layer_norm", "rms_norm", "rms_norm", "normalize"))
    given: dict[str, Any] = {} if dim is None else {"dim": dim}
    kind = "col" if dim is None else "channel"
    if word == "rms_norm":
        given["eps"] = 1e-6
    if word == "normalize":
        given.setdefault("dim", -1)
    elif draft.rng.random() < 0.8:
        given["weight"] = draft.operand(kind)
        if word == "layer_norm":
            given["bias"] = draft.operand(kind)
    draft.add({word: given} if given else word)


def _row_norm(draft: Draft) -> dict[str, Any]:
    draft.pointwise(0, 3)
    _norm_over(draft, None)
    draft.pointwise(0, 3)
    return {"least": 4}


def _channels(draft: Draft) -> dict[str, Any]:
    draft.pointwise(0, 2)
    if draft.rng.random() < 0.5:
        _norm_over(draft, 1)
    else:
        draft.add({draft.rng.choice(("softmax", "log_softmax")): {"dim": 1}})
    draft.pointwise(0, 2)
    return {}


def _group_norm(draft: Draft) -> dict[str, Any]:
    draft.arguments |= {"channels": "int", "groups": "int"}
    draft.pointwise(0, 2)
    draft.add({"group_norm": {"num_groups": "groups", "features": "channels"}})
    draft.pointwise(0, 3)
    return {"groups": True, "flat": not draft.rank, "least": 4, "most_cols": 1 << 17}


def _instance_norm(draft: Draft) -> dict[str, Any]:
    draft.arguments |= {"channels": "int"}
    draft.pointwise(0, 2)
    affine = draft.rng.random() < 0.7
    draft.add({"instance_norm": {"features": "channels", "affine": affine}})
    draft.pointwise(0, 3)
    return {"least": 4}


def _batch_norm(draft: Draft) -> dict[str, Any]:
    draft.arguments |= {"channels": "int"}
    draft.pointwise(0, 1)
    draft.add({"batch_norm": {"features": "channels"}})
    draft.pointwise(0, 3)
    return {"flat": not draft.rank, "least": 4, "least_rows": 16, "most_cols": 1 << 14}


def _reduction(draft: Draft) -> dict[str, Any]:
    draft.pointwise(1, 3)
    whole = draft.rng.random() < 0.25
    if whole:
        draft.add(draft.rng.choice(("mean", "norm")))
        return {}
    draft.add(_reduced(draft, -1 if not draft.rank else draft.rng.choice((1, _after(draft.rank)))))
    draft.unary(0, 2)
    return {"least": 4}


def _loss(draft: Draft) -> dict[str, Any]:
    if draft.rng.random() < 0.4:
        draft.pointwise(0, 2)
        draft.add({"cross_entropy": draft.operand("row", dtype="int64")})
        return {"flat": True, "least": 4, "most_cols": 1 << 18}
    draft.pointwise(0, 3)
    words = ("mse_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits")
    target = draft.operand("full")
    reduction = draft.rng.choice(("mean", "mean", "none"))
    draft.add({draft.rng.choice(words): {"target": target, "reduction": reduction}})
    return {}


def _segments(draft: Draft) -> dict[str, Any]:
    """Steps that reduce over different dims."""
    kind = draft.rng.choice(("norm, channels", "minimum, sum", "gate of means"))
    if kind == "norm, channels":
        draft.arguments |= {"channels": "int"}
        draft.add({"instance_norm": {"features": "channels"}})
        draft.unary(1, 2)
        word = draft.rng.choice(("logsumexp", "amax", "softmax"))
        draft.add({word: {"dim": 1} if word == "softmax" else {"dim": 1, "keepdim": True}})
    elif kind == "minimum, sum":
        draft.unary(0, 2)
        draft.add({draft.rng.choice(("min", "amax")): {"dim": 1, "keepdim": True}})
        draft.add({"mean": {"dim": 2, "keepdim": True}})
    else:
        draft.unary(0, 1)
        draft.add({"mean": {"dim": _after(draft.rank), "keepdim": True}})
        draft.add("sigmoid", {"mul": "input"})
    draft.unary(0, 2)
    return {"least": 4}


def _normed_softmax(draft: Draft) -> dict[str, Any]:
    """A batch norm before a softmax: two segments of rows and columns."""
    draft.arguments |= {"channels": "int"}
    draft.add({"batch_norm": {"features": "channels"}})
    draft.unary(0, 1)
    draft.add("softmax")
    return {"flat": True, "least": 4, "least_rows": 16, "most_cols": 1 << 14}


def _rope(draft: Draft) -> dict[str, Any]:
    if draft.rng.random() < 0.5:
        draft.add({"rms_norm": {"weight": draft.operand("col"), "eps": 1e-6}})
    cos, sin = (draft.operand("full", gradient=False) for _ in range(2))
    draft.broadcastable += [cos, sin]
    draft.add({"rope": {"cos": cos, "sin": sin}})
    return {"even": True, "least": 4, "most_cols": 1 << 12}


def _reduced(draft: Draft, dim: int | list[int]) -> Step:
    return {
        draft.rng.choice(_REDUCTIONS): {
            "dim": dim,
            "keepdim": draft.rng.random() < 0.5,
        }
    }


def _after(rank: int) -> list[int]:
    """Return the dims after the channel."""
    return list(range(2, rank))


#: The forms, each with the dims that x may have (0 for any number, with the columns last).
FORMS: dict[str, tuple[_Form, tuple[int, ...]]] = {
    "pointwise": (_pointwise, (0, 0, 4, 5)),
    "gate": (_gate, (0, 0, 4)),
    "softmax": (_softmax, (0,)),
    "row norm": (_row_norm, (0,)),
    "channels": (_channels, (3, 4, 5)),
    "group norm": (_group_norm, (0, 4, 5)),
    "instance norm": (_instance_norm, (3, 4, 5)),
    "batch norm": (_batch_norm, (0, 4, 5)),
    "reduction": (_reduction, (0, 0, 4, 5)),
    "loss": (_loss, (0,)),
    "segments": (_segments, (4, 5)),
    "batch norm, softmax": (_normed_softmax, (0,)),
    "rotary": (_rope, (0,)),
}


def draw_spec(seed: int, index: int, dtypes: Sequence[str]) -> DrawnSpec:
    """Return a spec of a seed. It depends on no other spec, nor on how many are drawn.

    Args:
        seed: the seed.
        index: the number of the spec; the forms take turns.
        dtypes: the dtypes to choose from, at most two for a spec: each is a compilation.
    """
    turn, place = divmod(index, len(FORMS))
    order = random.Random(f"{seed}/forms/{turn}").sample(list(FORMS), len(FORMS))
    form = order[place]
    rng = random.Random(f"{seed}/spec/{index}")
    add_steps, ranks = FORMS[form]
    rank = rng.choice(ranks)
    split = form in ("group norm", "batch norm")
    draft = Draft(rng, rank, _OF_CHANNELS if rank or split else _OF_ROWS)
    needs = add_steps(draft)
    fitting = [d for d in dtypes if d != "float16" or not _overflows(draft.steps)] or list(dtypes)
    chosen = rng.sample(fitting, min(2, len(fitting)))
    return DrawnSpec(
        name=f"random_{seed}_{index}",
        form=form,
        text=_text(draft.document(sorted(chosen, key=list(dtypes).index))),
        rank=rank,
        dtypes=tuple(chosen),
        broadcastable=tuple(draft.broadcastable),
        **needs,
    )


def _overflows(steps: Sequence[Step]) -> bool:
    return any(isinstance(step, dict) and next(iter(step)) in _LONG_SUMS for step in steps)


def _text(document: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(document))  # no object twice: an alias is an error
    return yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=200)


def _in_words(step: Step) -> str:
    if isinstance(step, str):
        return step
    ((word, given),) = step.items()
    if word == "expr":
        return str(given)
    if isinstance(given, dict):
        return f"{word}({', '.join(f'{name}={value}' for name, value in given.items())})"
    return f"{word}({given})"
