"""The measure of `make prove` sees what is wrong: a result, its kind, a zero's sign."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import derive
from prove.every_input import Measured, accounted, called, measure
from prove.screen import worth_measuring
from prove.truth import Truth
from prove.ulps import beyond, every, interleaved, stratified
from torch import Tensor

from fusegen.chain import Chain

Function = Callable[[Tensor], Tensor]
TEXT = "order: 1\nchain:\n  - expr: x * tanh(x - 1)\n"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    path = tmp_path_factory.mktemp("every_input") / "tilted.yaml"
    path.write_text(TEXT)
    return derive(path)


def rounded(x: Tensor) -> Tensor:
    """The function in float64, rounded once."""
    wide = x.double()
    return (wide * torch.tanh(wide - 1)).to(x.dtype)


def changed(at: float, to: Callable[[Tensor], Any]) -> Function:
    """Return the function with another result for one number."""
    return lambda x: torch.where(x.double() == at, to(rounded(x)), rounded(x))


def measured(chain: Chain, function: Function, order: int = 0) -> Measured:
    row = Measured("tilted", "tilted", "bfloat16", order)
    package: Any = SimpleNamespace(apply=function)
    measure(row, package, chain, Truth(chain, order), every(torch.bfloat16))
    return row


def looked_at(chain: Chain, function: Function) -> list[float]:
    """Return the numbers of bfloat16 that are worth a second look after a function that is rounded once."""
    row = measured(chain, rounded)
    row.eager.ulp = torch.inf  # torch's own errors aside
    row.away.ulp = 0.75
    package: Any = SimpleNamespace(apply=function)
    found = worth_measuring(row, package, chain, Truth(chain, 0), every(torch.bfloat16))
    return [float(x) for x in found if not x.isnan()]


def looked_at_beside(chain: Chain, x: Tensor, kinds: list[str]) -> tuple[list[float], int]:
    """Return the numbers that are measured where torch alone gives NaN, and how many are counted."""
    row = measured(chain, rounded)
    row.eager.ulp = torch.inf
    row.unlike.torch = 0
    row.unlike.examples = [(kind, "", "", "", "") for kind in kinds]
    package: Any = SimpleNamespace(apply=rounded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prove.screen.run_chain", lambda _, x, *_rest: torch.full_like(x, torch.nan))
        found = worth_measuring(row, package, chain, Truth(chain, 0), x)
    return found.tolist(), row.unlike.torch


def up(x: Tensor) -> Tensor:
    """Two numbers further."""
    far = torch.full_like(x, torch.inf)
    return torch.nextafter(torch.nextafter(x, far), far)


def test_a_result_that_is_rounded_once_is_half_an_ulp_off(chain: Chain) -> None:
    row = measured(chain, rounded)
    assert row.inputs == 2**16
    assert row.right
    assert row.far == 0
    assert row.away.ulp <= 0.5
    assert row.crossing.ulp <= 0.5


def test_derivatives_are_those_of_the_formula(chain: Chain) -> None:
    assert measured(chain, rounded, order=1).right


@pytest.mark.parametrize(("at", "place"), [(-0.5, "away"), (1.25, "crossing")])
def test_one_wrong_result_is_found_where_it_is(at: float, place: str, chain: Chain) -> None:
    row = measured(chain, changed(at, lambda y: up(up(y))))
    found = getattr(row, place)
    assert found.x == at
    assert 1 < found.ulp <= 4.5
    assert row.far == 1


def test_a_result_far_off_is_not_what_rounding_may_cost(chain: Chain) -> None:
    row = measured(chain, changed(2.0, lambda y: y * 1.5))
    assert row.units > 1
    assert not row.right
    assert not accounted({"right": row.right, "package": row.package})


def test_a_nan_and_an_infinity_are_no_numbers(chain: Chain) -> None:
    for wrong in (torch.nan, torch.inf):
        row = measured(chain, changed(2.0, lambda y, wrong=wrong: torch.full_like(y, wrong)))
        assert row.away.ulp == torch.inf
        assert row.unlike.others == 1
        assert not row.right


def test_chunks_that_are_no_worse_change_nothing(chain: Chain) -> None:
    """What is worst so far is known, so that less of a chunk is computed to 60 digits."""
    whole, parts = (Measured("tilted", "tilted", "bfloat16", 0) for _ in range(2))
    package: Any = SimpleNamespace(apply=changed(-0.5, lambda y: up(up(y))))
    truth = Truth(chain, 0)
    measure(whole, package, chain, truth, every(torch.bfloat16))
    for part in every(torch.bfloat16).split(2**13):
        measure(parts, package, chain, truth, part, few=0)
    assert parts == whole


def test_results_that_torch_alone_has_wrong_are_counted_after_one_example(chain: Chain) -> None:
    x = torch.tensor([2.0, 3.0], dtype=torch.bfloat16)
    assert looked_at_beside(chain, x, []) == ([2.0, 3.0], 0)
    assert looked_at_beside(chain, x, ["torch"]) == ([], 2)


def test_the_sign_of_a_zero_is_noted(chain: Chain) -> None:
    row = measured(chain, changed(1.0, lambda y: -y))
    assert row.unlike.zeros == 1
    assert row.right, "which is no wrong result"


def test_a_derivative_that_is_not_there_is_0() -> None:
    x = torch.ones(3)
    assert called(lambda t: t.detach(), 1, x).eq(0).all()


def test_float32_numbers_come_from_strata_of_bits() -> None:
    x = stratified(40_000, seed=0)
    assert len(x) == 40_000
    assert len(x.view(torch.int32).unique()) > 39_000
    finite = x[x.isfinite()].abs()
    assert finite.min() < 1e-37
    assert finite.max() > 1e37
    assert (x < 0).float().mean() == pytest.approx(0.5, abs=0.01)
    between = (finite >= 2.0**-14) & (finite < 2.0**7)
    assert 0.5 < between.float().mean() < 0.6
    assert torch.equal(x.nan_to_num(), stratified(40_000, seed=0).nan_to_num())


def test_float32_numbers_come_in_chunks_that_go_through_all() -> None:
    chunks = [*interleaved(3 * 2**14, 2**14, "cpu")]
    bits = torch.cat(chunks).view(torch.int32)
    assert len(bits.unique()) == 3 * 2**14
    for chunk in chunks:
        assert torch.equal(
            chunk.view(torch.int32).long().remainder(2**32).diff(), torch.full((2**14 - 1,), 2**18)
        )


def test_all_float32_numbers_are_there_once() -> None:
    """Of bit patterns of 20 bits, as of all of 32."""
    found = torch.cat([*interleaved(2**20, 2**16, "cpu", bits=20)])
    assert torch.equal(
        found.view(torch.int32).sort().values, torch.arange(2**20, dtype=torch.int32)
    )


def test_an_ulp_is_the_distance_to_the_next_number() -> None:
    truth = torch.tensor([1.0, 1.0, 3.0, 1e-30], dtype=torch.float64)
    got = torch.tensor([1 + 2**-23, 1 - 2**-24, 3.0, 0.0])
    error = beyond(got, truth, least=0.0)
    assert error[:3].tolist() == [1.0, 0.5, 0.0]
    assert error[3] > 1e6
    assert beyond(got, truth)[3] > 1e6, "1e-30 is a normal number"
    tiny = torch.tensor([1e-40], dtype=torch.float64)
    assert beyond(torch.zeros(1), tiny) == 0
    assert beyond(torch.zeros(1), tiny, least=0.0) > 1


def test_what_cannot_be_the_worst_is_not_looked_at_again(chain: Chain) -> None:
    unlike_torch = looked_at(chain, rounded)
    assert len(unlike_torch) < 10
    for to in (up, lambda x: x * torch.nan, lambda x: x * 0.0, lambda x: -x):
        assert {*looked_at(chain, changed(3.25, to))} == {*unlike_torch, 3.25}
