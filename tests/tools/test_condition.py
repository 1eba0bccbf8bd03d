"""The measure of errors: an ulp where nothing cancels, what is subtracted where something does, no more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fusegen.toolchain import pipeline
from fusegen.tools.check.condition import spreads
from fusegen.tools.check.rounding import EXACT, Rounding
from fusegen.tools.check.verify import BOUND, Comparison, Error, compare, make_case

Call = tuple[Comparison, list[Tensor], list[Tensor]]

#: Results that cancel nowhere, so that each of their elements is held to a few ulp of itself.
SMOOTH = {
    "gelu": "chain: [gelu]",
    "gelu_tanh": "chain: [{gelu: {approximate: tanh}}]",
    "swish": "chain: [swish]",
    "sigmoid": "chain: [sigmoid]",
    "exp": "chain: [exp]",
    "softmax": "chain: [{softmax: {dim: -1}}]",
    "gated": "operands: {weight: col, residual: full}\nchain: [mish, {mul: weight}, {mul: residual}]",
}


def called(folder: Path, text: str, dtype: torch.dtype, x: Tensor | None = None) -> Call:
    """Return a comparison of a spec, its truth and the spread of its results, by default at random."""
    (folder / "measured.yaml").write_text(text)
    chain = pipeline.derive(folder / "measured.yaml")
    case = make_case(chain, (5, 67) if x is None else x.shape, training=False)
    if x is not None:
        case.x.copy_(x)
    comparison = Comparison(chain, case, dtype)
    return comparison, comparison.truth(), comparison.spread()


def moved(call: Call, place: int, off: Tensor | float, result: int = 0) -> Error:
    """Return the error of a result that is right but for one element, which is off by so much."""
    comparison, truth, spread = call
    got = truth[result].to(comparison.dtype)
    got.view(-1)[place] = (truth[result].view(-1)[place] + off).to(comparison.dtype)
    return comparison.error(comparison.names[result], got, truth[result], spread[result])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SMOOTH)
def test_one_small_element_that_is_wrong_is_found(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """A relative error of 1e-5 in float32, of 3 ulp in 16 bits, at any element, however small."""
    call = called(tmp_path, SMOOTH[name], dtype)
    comparison, truth, _ = call
    off = 1e-5 if dtype == torch.float32 else 3 * torch.finfo(dtype).eps
    least = 4 * torch.finfo(dtype).tiny
    for place in truth[0].reshape(-1).abs().argsort()[::33].tolist():
        exact = truth[0].view(-1)[place]
        if abs(exact) < least:
            continue
        assert moved(call, place, 0.0).within
        error = moved(call, place, exact * off)
        assert not error.within, str(error)
        assert error.worst.index == tuple(
            int(i) for i in torch.unravel_index(torch.tensor(place), truth[0].shape)
        )
        assert f"at x = {float(comparison.given['x'][error.worst.index]):.9g}" in str(error)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_where_nothing_cancels_a_unit_is_a_few_ulp(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    comparison, truth, spread = called(tmp_path, SMOOTH[name], dtype)
    info = torch.finfo(dtype)
    plain = truth[0].abs() > 4 * info.tiny
    ulp = (spread[0] / (info.eps * truth[0].abs()))[plain]
    assert comparison.names[0] == "output"
    assert ulp.max() < (6 if dtype == torch.float32 else 1)  # gelu's tail: a sigmoid of -6


def test_what_is_subtracted_counts_where_it_is_large(tmp_path: Path) -> None:
    """x - mean(x) far from 0 has an error of an ulp of the mean, whatever is left."""
    x = 1000 + torch.randn(4, 257, dtype=torch.float64)
    call = called(tmp_path, 'chain: [expr: "x - mean(x)"]', torch.float32, x)
    ulp = 1000 * torch.finfo(torch.float32).eps
    smallest = int(call[1][0].abs().argmin())
    assert moved(call, smallest, ulp).within
    assert not moved(call, smallest, 20 * ulp).within


def test_a_difference_of_two_given_numbers_is_held_to_an_ulp(tmp_path: Path) -> None:
    """Both are exact, so there is one rounding, however near to each other they are."""
    text = "operands: {target: full}\nchain: [{sub: target}]"
    call = called(tmp_path, text, torch.float32)
    smallest = int(call[1][0].abs().argmin())
    assert not moved(call, smallest, 1e-5 * call[1][0].view(-1)[smallest]).within


def test_a_sum_is_held_against_the_magnitudes_that_are_added(tmp_path: Path) -> None:
    text = "operands: {bias: col}\nchain: [{add: bias}]"
    call = called(tmp_path, text, torch.float32, torch.randn(1000, 3, dtype=torch.float64))
    gradient = call[0].names.index("grad_bias")
    terms = 1000 * 0.8  # the cotangent's mean magnitude
    eps = torch.finfo(torch.float32).eps
    assert moved(call, 0, eps * terms, gradient).within
    assert not moved(call, 0, 40 * eps * terms, gradient).within


def test_a_log_softmax_above_zero_is_found(tmp_path: Path) -> None:
    """In bfloat16 exp(0) was not 1, so that of [20, 0, 0] was 7.2e-5: little beside the other elements."""
    x = torch.tensor([[20.0, 0.0, 0.0]], dtype=torch.float64)
    call = called(tmp_path, "chain: [{log_softmax: {dim: -1}}]", torch.bfloat16, x)
    assert not moved(call, 0, 7.2e-5).within
    assert moved(call, 0, 4e-9).within


def test_a_tail_of_gelu_that_is_wrong_is_found(tmp_path: Path) -> None:
    """1 + tanh cancels near -3.5, which cost 21 ulp of bfloat16: -6e-4 beside elements of 3."""
    x = torch.linspace(-6, 6, 481, dtype=torch.float64)[None]
    call = called(tmp_path, SMOOTH["gelu_tanh"], torch.bfloat16, x)
    place = int((x + 3.5).abs().argmin())
    exact = call[1][0][0, place]
    eps = torch.finfo(torch.bfloat16).eps
    for ulp in (4, 10):  # 8 and 21 of the ulp at 1.2 times a power of 2
        assert not moved(call, place, exact * ulp * eps).within


@pytest.mark.parametrize("scale", [14.3, 100.0, 1e4])
def test_a_softmax_that_recomputes_another_maximum_is_found(scale: float, tmp_path: Path) -> None:
    """scale x - max with a fused multiply-add is not what the maximum and the sum were taken of."""
    text = "operands: {scale: scalar}\nchain: [{mul: scale}, {softmax: {dim: -1}}]"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 257, generator=generator, dtype=torch.float64)
    (tmp_path / "scaled.yaml").write_text(text)
    chain = pipeline.derive(tmp_path / "scaled.yaml")
    case = make_case(chain, x.shape, training=False)
    case.x.copy_(x)
    case.operands["scale"].fill_(scale)
    comparison = Comparison(chain, case, torch.float32)

    def softmax(x: Tensor, operands: dict[str, Tensor], *, fused: bool) -> Tensor:
        exact = x.double() * operands["scale"].double()
        rounded = exact.float()
        most = rounded.amax(-1, keepdim=True)
        total = (rounded - most).exp().sum(-1, keepdim=True)
        again = (exact - most).float() if fused else rounded - most
        return again.exp() / total

    errors = {}
    for fused in (False, True):

        def function(x: Tensor, operands: dict[str, Tensor]) -> Tensor:
            return softmax(x, operands, fused=fused)  # noqa: B023

        # The gradient by hand, as a kernel has it: y (g - sum(y g)) scale.
        found = comparison.results(function, torch.float32)
        y = found[0]
        generator = torch.Generator().manual_seed(case.seed)
        along = torch.randn(y.shape, generator=generator, dtype=torch.float64).bfloat16().float()
        gradient = y * (along - (y * along).sum(-1, keepdim=True)) * scale
        errors[fused] = comparison.error(
            "grad_x", gradient, comparison.truth()[1], comparison.spread()[1]
        )
    assert errors[False].within, str(errors[False])
    assert not errors[True].within, str(errors[True])


def test_nan_and_infinity_stand_where_the_truth_has_them(tmp_path: Path) -> None:
    call = called(tmp_path, "chain: [exp]", torch.float16)
    comparison, truth, spread = call
    for wrong in (float("nan"), float("inf"), -float("inf")):
        got = truth[0].half()
        got[2, 3] = wrong
        error = comparison.error("output", got, truth[0], spread[0])
        assert error.units == float("inf")
        assert error.worst.index == (2, 3)
        exact = truth[0].clone()
        exact[2, 3] = wrong
        assert comparison.error("output", got, exact, spread[0]).within
        assert not comparison.error("output", truth[0].half(), exact, spread[0]).within


@pytest.mark.parametrize("dtype", BOUND)
def test_the_errors_drawn_are_the_same_from_run_to_run(dtype: torch.dtype, tmp_path: Path) -> None:
    first, second = (called(tmp_path, SMOOTH["softmax"], dtype)[2] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_sum_over_no_dims_is_its_terms() -> None:
    """So that it is in every torch: 2.11 adds up everything where `dim` is empty."""
    terms = torch.arange(3.0, dtype=torch.float64)
    assert torch.equal(EXACT.sum(terms, ()), terms)


def test_the_spread_of_the_smallest_numbers_is_not_lost() -> None:
    """The square of an error near 1e-176 is 0 in float64."""

    def run(rounding: Rounding) -> list[Tensor]:
        terms = torch.tensor([1e-176, 2e-176, -1e-176], dtype=torch.float64)
        return [rounding.sum(terms, (0,))]

    (spread,) = spreads(run, torch.float64)
    assert 1e-194 < spread.item() < 1e-190


def test_what_eight_runs_call_wrong_is_held_against_more_of_them(tmp_path: Path) -> None:
    """Of many elements some have eight small errors by chance, so that a right one seems wrong.

    A float32 may be off by 8 deviations. One that is off by 7 of them is right, one by 20 is wrong.
    """
    (folder := tmp_path / "x").mkdir()
    comparison, truth, few = called(folder, SMOOTH["softmax"], torch.float32)
    many = comparison.spread(64)
    lean = int((few[0] / many[0]).argmin())

    class Package:
        def __init__(self, deviations: float) -> None:
            self.off = torch.zeros_like(truth[0])
            self.off.view(-1)[lean] = deviations * many[0].view(-1)[lean]

        def apply(self, x: Tensor) -> Tensor:
            exact: Tensor = torch.softmax(x.double(), -1)
            return (exact + self.off).to(x.dtype)

    assert moved((comparison, truth, few), lean, float(7 * many[0].view(-1)[lean])).units > 2
    assert all(
        e.within for e in compare(Package(7), comparison.chain, comparison.case, torch.float32)
    )
    assert not all(
        e.within for e in compare(Package(20), comparison.chain, comparison.case, torch.float32)
    )
