"""What a wrong call is told: the module, the argument, what was expected and what came."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from fusegen.runtime.checked_calls import CheckedCalls, signature

Package = Callable[[str], ModuleType]
FIVE, GELU = "matmul_add_swish_tanh_gelu_hardtanh", "matmul_gelu_softmax"


def full(*shape: int, **options: Any) -> torch.Tensor:
    return torch.ones(*shape, **options)


WRONG: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    (GELU, ([1.0], full(4)), TypeError, "x: expected a tensor, got list"),
    (GELU, (full(2, 4).int(), full(4)), TypeError, "x: expected one of float64.*got int32"),
    (
        GELU,
        (full(2, 4), full(4).double()),
        TypeError,
        r"linear_bias: expected float32.*got float64; call .to\(x.dtype\)",
    ),
    (GELU, (full(2, 4), full(5)), ValueError, r"linear_bias: expected shape \(4,\).*got \(5,\)"),
    (
        GELU,
        (full(2, 4), full(4, 1)),
        ValueError,
        r"linear_bias: expected shape \(4,\).*got \(4, 1\)",
    ),
    (GELU, (full(2, 4), None), TypeError, "linear_bias: expected a tensor, got NoneType"),
    (
        GELU,
        (full(2, 3, 4), full(4)),
        ValueError,
        r"x: expected 2 dims.*\(2, 3, 4\); for more, say `dims: 3`",
    ),
    (
        GELU,
        (full(2, 4, device="meta"), full(4)),
        ValueError,
        "linear_bias: expected a tensor on meta",
    ),
    (
        "residual_add_gelu",
        (full(2, 4), full(2)),
        ValueError,
        r"expected shape \(2, 4\).*got \(2,\); a full operand may have any shape that torch broadcasts",
    ),
]


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "message"), WRONG, ids=[w[3][:40] for w in WRONG]
)
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
def test_a_wrong_argument_is_named(
    name: str,
    arguments: tuple[Any, ...],
    kind: type[Exception],
    message: str,
    gradients: bool,
    package: Package,
) -> None:
    if gradients:
        arguments = tuple(
            a.requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
            for a in (a.clone() if isinstance(a, torch.Tensor) else a for a in arguments)
        )
    with pytest.raises(kind, match=f"{name}: .*{message}|{message}") as raised:
        package(name).apply(*arguments)
    assert re.search(name, str(raised.value))


def test_a_missing_operand_is_named(package: Package) -> None:
    with pytest.raises(TypeError, match=rf"{FIVE}\.apply\(\) missing 1 required .* 'matmul_bias'"):
        package(FIVE).apply(full(2, 4), full(4))


def test_too_many_operands_are_refused(package: Package) -> None:
    with pytest.raises(TypeError, match=rf"{GELU}\.apply\(\) takes 2 positional arguments but 3"):
        package(GELU).apply(full(2, 4), full(4), full(4))


def test_a_good_call_after_a_wrong_one_works(package: Package) -> None:
    with pytest.raises(ValueError, match="linear_bias"):
        package(GELU).apply(full(2, 4), full(5))
    torch.testing.assert_close(package(GELU).apply(full(2, 4), full(4)), full(2, 4) / 4)


@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
def test_a_call_that_was_checked_lets_no_other_pass(gradients: bool, package: Package) -> None:
    """Its check is not repeated. Each thing that the check looks at makes another call of it."""
    apply = package(GELU).apply
    for _ in range(2):
        apply(full(2, 4).requires_grad_(gradients), full(4))
    for name, arguments, kind, message in WRONG:
        if name == GELU:
            with pytest.raises(kind, match=message):
                apply(*arguments)
    assert apply(full(3, 4), full(4)).shape == (3, 4)


def test_groups_are_checked_with_each_shape() -> None:
    x = full(2, 4, 3)
    assert signature(x, (), 2) == signature(full(2, 4, 3), (), 2)
    assert signature(x, (), 2) != signature(x, (), 3)
    assert signature(x, (), 2) != signature(x.bfloat16(), (), 2)


def test_what_is_no_tensor_of_torch_is_checked_each_time() -> None:
    assert signature(torch.nested.nested_tensor([full(2), full(3)]), (), 1) is None
    assert signature(full(2, 4), (torch.ones(3).as_subclass(Own),), 1) is None


def test_shapes_that_change_with_each_call_do_not_fill_the_memory() -> None:
    known = CheckedCalls()
    for rows in range(2000):
        known.note((rows,))
    assert len(known) < 1000
    assert (1999,) in known


class Own(torch.Tensor):
    """A subclass, as people write them."""
