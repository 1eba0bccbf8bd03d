"""A sum and the sum of squares about its mean are found in one sweep, where a row is streamed."""

from __future__ import annotations

from shared.small_programs import X, program_of

from fusegen.atoms import row_mean, row_sum, sigmoid
from fusegen.lower import lower
from fusegen.ops import call, find


def test_a_norm_joins_its_mean_and_its_variance() -> None:
    first, second, last = lower(program_of(call(find("layer_norm"), X, {}, {}))).stages
    assert first.joined
    assert second.centred
    assert not (last.joined or last.centred)


def test_what_only_resembles_a_variance_stays_alone() -> None:
    """A fourth power, a distance from twice the mean, one from the sum, and products with other values."""
    mean = row_mean(X)
    for term in (
        (X - mean) ** 4,
        (X - 2 * mean) ** 2,
        (X - row_sum(X)) ** 2,
        (X - mean) * X,
        (X - mean) * (sigmoid(X) - mean),
    ):
        stages = lower(program_of(X / row_sum(term))).stages
        assert not any(s.joined or s.centred for s in stages), term


def test_a_variance_of_a_function_of_x_is_joined() -> None:
    """Whether each stage keeps the value or computes it again, as that of x and a bias."""
    for value in (sigmoid(X), X + 3):
        stages = lower(program_of(X / row_sum((value - row_mean(value)) ** 2))).stages
        assert [s.joined for s in stages] == [True, False, False], value
        assert [s.centred for s in stages] == [False, True, False], value
