"""Mutated specs: what a slip of the hand, a bad merge or a stranger may make of a spec."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml

#: Values that stand where another was meant.
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        10**17,
        2**63,
        -(10**30),
        0.5,
        -0.0,
        1e-320,
        1e308,
        1e-5,
    ),
    *(
        "",
        " ",
        "x",
        "inf",
        "-inf",
        "nan",
        "null",
        "yes",
        "0x10",
        "1_000",
        "x\u200by",
        "\u00e9",
        "\U0001f600",
    ),
    *(
        "*/",
        '"""',
        "a\\",
        "{{ 1 }}",
        "??/",
        "'",
        "#",
        "input",
        "self",
        "dim",
        "name",
        "row",
        "full",
        "2 * n",
    ),
    *([], {}, [1], [1, 2], [[1]], {"a": 1}, ["x"], {"dim": 1}, [-1, -2], [2, 3], list(range(40))),
]
#: Words that stand where another word was meant.
WORDS = """
    gelu softmax sum mean max min var std norm layer_norm batch_norm group_norm instance_norm
    rms_norm linear conv2d conv_transpose3d bmm dropout glu geglu swiglu cross_entropy nll_loss
    mse_loss l1_loss kl_div lerp where clamp pow prelu causal_mask normalize logsumexp amax expr add
    mul div relu tanh softshrink threshold ReLU nn.GELU view forward backward waves cluster int
    float shape full row col channel scalar zeros ones randn chain operands arguments dims order
    launch kind type default init dtype int64 x y out weight bias eps
""".split()  # noqa: SIM905
#: Steps that most chains may have.
STEPS: list[Any] = [
    *("relu", "gelu", "mish", "tanh", "sigmoid", "swish", "hardswish", "square", "softmax", "abs"),
    *({"mul": 0.5}, {"add": 1}, {"pow": 2}, {"clamp": {"min": -1}}, {"softplus": {"beta": 2}}),
    *({"softmax": {"dim": 1}}, {"mean": {"dim": -1, "keepdim": True}}, {"leaky_relu": 0.2}),
    *({"amax": {"dim": -1}}, {"logsumexp": {"dim": 1}}, {"dropout": 0.1}, {"expr": "x * sin(x)"}),
    *({"expr": "x - mean(x)"}, {"expr": "where(x > 0, x, exp(x) - 1)"}, {"layer_norm": {}}, "sum"),
]
#: Pieces of formulas.
PIECES = """
    x + - * / ** ( ) , . 0 1 2 -1 1e-3 1e400 1e-400 99999999999999999999 pi sin( exp( log( sqrt(
    abs( sign( tanh( mean( sum( max( var( std( norm( softmax( log_softmax( logsumexp( where(
    where(x>0, x, < <= == = ! % & [ ] { } ' " \\ # ; : @ ~ lambda import __import__( x. x**0.5 x**-1
    x**64 x**65 1/0 0/0 0**0 (-1)**0.5 x*x*x*x mean(mean(x)) x-x x/x x*0
""".split()  # noqa: SIM905

#: What code of an attack would leave behind, so that it is seen.
CANARY = "fusegen_canary"
#: Values and names that are code in Python, C++, the shell, a template or a path, if anything runs them.
ATTACKS = [
    f"__import__('os').system('touch {CANARY}')",
    f"x + __import__('os').system('touch {CANARY}')",
    f"(lambda: open('{CANARY}', 'w'))()",
    f"exec(\"open('{CANARY}', 'w')\")",
    f"x.__class__.__mro__[1].__subclasses__()('{CANARY}')",
    f"{{{{ ''.__class__.__mro__[1].__subclasses__()('{CANARY}') }}}}",
    f"{{% include '/etc/passwd' %}}{CANARY}",
    f'"""\nopen("{CANARY}", "w")\n"""',
    f'*/ int {CANARY} = system("touch {CANARY}"); /*',
    f'#include "/etc/passwd" // {CANARY}',
    f'x); system("touch {CANARY}"); (x',
    f"x??/\nint {CANARY};",
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f"../../{CANARY}",
    f"/tmp/{CANARY}",
    f"x{CANARY}\x00",
    f"!!python/object/apply:os.system ['touch {CANARY}']",
]

Mutation = Callable[[random.Random, Any], Any]


def mutant(seed: int, texts: Sequence[str]) -> str:
    """Return one of the specs after one to four mutations; the same for the same seed."""
    rng = random.Random(seed)
    text = rng.choice(texts)
    if rng.random() < 0.25:
        for _ in range(rng.randint(1, 3)):
            text = rng.choice(TEXT_MUTATIONS)(rng, text)
        return text
    try:
        data = yaml.safe_load(text)
        json.dumps(data)
    except (yaml.YAMLError, TypeError, ValueError):  # a spec with a mistake, or a date
        return rng.choice(TEXT_MUTATIONS)(rng, text)
    mutations = GENTLE if rng.random() < 0.4 else DATA_MUTATIONS
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4])):
        data = rng.choice(mutations)(rng, data)
    return json.dumps(data, ensure_ascii=False, indent=1)


def _places(data: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [place]
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in items:
        found += _places(value, (*place, key))
    return found


def _at(data: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        data = data[key]
    return data


def _some_place(rng: random.Random, data: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a copy of the data and a place in it, not the whole."""
    data = json.loads(json.dumps(data))
    places = [p for p in _places(data) if p]
    return data, rng.choice(places) if places else ()


def _replaced(rng: random.Random, data: Any) -> Any:
    data, place = _some_place(rng, data)
    if not place:
        return rng.choice(ODD)
    _at(data, place[:-1])[place[-1]] = rng.choice([*ODD, *WORDS])
    return data


def _attacked(rng: random.Random, data: Any) -> Any:
    """Put code where a value or a name stands."""
    data, place = _some_place(rng, data)
    attack = rng.choice(ATTACKS)
    if not place:
        return attack
    owner = _at(data, place[:-1])
    if isinstance(place[-1], str) and rng.random() < 0.4:
        owner[attack] = owner.pop(place[-1])
    else:
        owner[place[-1]] = rng.choice([attack, {"formula": attack}, {"expr": attack}])
    return data


def _number_changed(rng: random.Random, data: Any) -> Any:
    """Change a number to another, which may be out of range."""
    data = json.loads(json.dumps(data))
    numbers = [p for p in _places(data) if p and type(_at(data, p)) in (int, float)]
    if numbers:
        place = rng.choice(numbers)
        value = _at(data, place)
        _at(data, place[:-1])[place[-1]] = rng.choice(
            [value + 1, value - 1, -value, value * 2, value / 2, value * 1e3, float(value)]
        )
    return data


def _step_moved(rng: random.Random, data: Any) -> Any:
    """Move a step to another place of the chain, or leave it out."""
    data = json.loads(json.dumps(data))
    chain = data.get("chain") if isinstance(data, dict) else None
    if isinstance(chain, list) and len(chain) > 1:
        step = chain.pop(rng.randrange(len(chain)))
        if rng.random() < 0.8:
            chain.insert(rng.randint(0, len(chain)), step)
    return data


def _op_added(rng: random.Random, data: Any) -> Any:
    """Add a step that most chains may have, so that more mutants are derived to the end."""
    data = json.loads(json.dumps(data))
    chain = data.get("chain") if isinstance(data, dict) else None
    if isinstance(chain, list):
        chain.insert(rng.randint(0, len(chain)), json.loads(json.dumps(rng.choice(STEPS))))
    return data


def _order_changed(rng: random.Random, data: Any) -> Any:
    if isinstance(data, dict):
        data = {**data, "order": rng.choice([0, 1, 1, 2, 2, 3, 4])}
    return data


def _removed(rng: random.Random, data: Any) -> Any:
    data, place = _some_place(rng, data)
    if place:
        del _at(data, place[:-1])[place[-1]]
    return data


def _renamed(rng: random.Random, data: Any) -> Any:
    data, place = _some_place(rng, data)
    if place and isinstance(place[-1], str):
        owner = _at(data, place[:-1])
        value = owner.pop(place[-1])
        word = rng.choice([*WORDS, place[-1][:-1], place[-1] + "s", place[-1].upper(), "x" * 70])
        owner[word] = value
    return data


def _doubled(rng: random.Random, data: Any) -> Any:
    data, place = _some_place(rng, data)
    if place and isinstance(place[-1], int):
        owner = _at(data, place[:-1])
        for _ in range(rng.choice([1, 1, 2, 12])):
            owner.insert(rng.randint(0, len(owner)), json.loads(json.dumps(owner[place[-1]])))
    return data


def _swapped(rng: random.Random, data: Any) -> Any:
    data, one = _some_place(rng, data)
    others = [p for p in _places(data) if p and p[: len(one)] != one and one[: len(p)] != p]
    if others:
        other = rng.choice(others)
        first, second = _at(data, one), _at(data, other)
        _at(data, one[:-1])[one[-1]], _at(data, other[:-1])[other[-1]] = second, first
    return data


def _nested(rng: random.Random, data: Any) -> Any:
    data, place = _some_place(rng, data)
    if place:
        value = _at(data, place)
        for _ in range(rng.choice([1, 2, 20])):
            value = [value] if rng.random() < 0.5 else {rng.choice(WORDS): value}
        _at(data, place[:-1])[place[-1]] = value
    return data


def _step_added(rng: random.Random, data: Any) -> Any:
    """Add a step of any op, with attributes and operands of any kind."""
    data = json.loads(json.dumps(data))
    chain = data.get("chain") if isinstance(data, dict) else None
    if isinstance(chain, list):
        word = rng.choice(WORDS)
        keys = rng.sample(
            [
                "dim",
                "keepdim",
                "eps",
                "p",
                "other",
                "name",
                "reduction",
                "target",
                "weight",
                "formula",
            ],
            2,
        )
        given = {key: rng.choice([*ODD, 1, -1, [2, 3], True, "input", "w", "mean"]) for key in keys}
        step = rng.choice([word, {word: rng.choice([*ODD, 1, "input"])}, {word: given}])
        chain.insert(rng.randint(0, len(chain)), step)
    return data


def _formula_changed(rng: random.Random, data: Any) -> Any:
    data = json.loads(json.dumps(data))
    chain = data.get("chain") if isinstance(data, dict) else None
    if not isinstance(chain, list):
        return data
    formulas = [s for s in chain if isinstance(s, dict) and "expr" in s]
    step = rng.choice(formulas) if formulas else {"expr": "x * sigmoid(x) + mean(x)"}
    if not formulas:
        chain.append(step)
    given = step["expr"]
    text = given.get("formula", "x") if isinstance(given, dict) else given
    text = str(text)
    at = rng.randint(0, len(text))
    change = rng.randrange(4)
    if change == 0:
        text = text[:at]
    elif change == 1:
        text = text[:at] + rng.choice(PIECES) + text[at:]
    elif change == 2:
        text = " ".join(rng.choice(PIECES) for _ in range(rng.randint(1, 9)))
    else:
        text = rng.choice(
            ["{0} + {0}", "({0}) / ({0})", "exp({0})", "where({0} > 0, {0}, 1)"]
        ).format(text)
    if isinstance(given, dict):
        given["formula"] = text
    else:
        step["expr"] = text
    return data


def _cut(rng: random.Random, text: str) -> str:
    return text[: rng.randint(0, len(text))]


def _character(rng: random.Random, text: str) -> str:
    at = rng.randint(0, len(text))
    odd = "\t\r\n\x00\x07\x85\u2028\ufeff\u00a0\u00e9\U0001f600:-[]{},&*!|>'\"%@`#?\\"
    return text[:at] + rng.choice(odd) + text[at + rng.randint(0, 1) :]


def _line_changed(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    change = rng.randrange(4)
    if change == 0:
        del lines[at]
    elif change == 1:
        lines.insert(rng.randint(0, len(lines)), lines[at])
    elif change == 2:
        lines[at] = " " * rng.randint(0, 5) + lines[at].lstrip()
    else:
        odd = str(rng.choice([*ODD, *WORDS]))
        lines[at] = re.sub(r"[-\w.]+(?=\W*$)", lambda _: odd, lines[at], count=1)
    return "\n".join(lines)


def _word_changed(rng: random.Random, text: str) -> str:
    words = list(re.finditer(r"[\w.]+", text))
    if not words:
        return text
    word = rng.choice(words)
    return text[: word.start()] + rng.choice(WORDS) + text[word.end() :]


DATA_MUTATIONS: list[Mutation] = [
    *(_replaced, _replaced, _removed, _renamed, _doubled, _swapped, _nested),
    *(_step_added, _step_added, _formula_changed, _formula_changed, _attacked),
    *(_number_changed, _step_moved, _op_added, _order_changed),
]
#: Those after which a spec is often right.
GENTLE: list[Mutation] = [_number_changed, _step_moved, _op_added, _op_added, _order_changed]
TEXT_MUTATIONS: list[Callable[[random.Random, str], str]] = [
    *(_cut, _character, _character, _line_changed, _word_changed),
]
