"""The reference of random programs: torch's functions where torch has none, and the noise that they get."""

from __future__ import annotations

import pytest
import torch
from random_programs.noise import Noise
from random_programs.ops_in_torch import OWN, WRITTEN_OUT, declared
from torch import Tensor

from fusegen.ops import find


def drawn(*shape: int) -> Tensor:
    return 9 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dims", [(1, 2), (0, 1), (-2, -1), (0, 1, 2)], ids=str)
def test_a_softmax_of_several_dims_is_one_of_all_their_elements(dims: tuple[int, ...]) -> None:
    x, softmax = drawn(3, 5, 2), find("softmax")
    assert softmax
    expected = torch.exp(x - torch.logsumexp(x, dims, keepdim=True))
    torch.testing.assert_close(declared(softmax, x, dim=dims), expected)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("place", [None, 0, 1])
def test_a_cross_entropy_that_is_written_out_is_torchs(reduction: str, place: int | None) -> None:
    name, x = "binary_cross_entropy_with_logits", drawn(3, 4)
    weights = [drawn(4).abs() if n == place else None for n in range(2)]
    expected, found = (
        of[name](x, drawn(3, 4), *weights, reduction=reduction) for of in (OWN, WRITTEN_OUT)
    )
    torch.testing.assert_close(found, expected)


def test_what_is_too_small_is_not_always_nothing() -> None:
    """torch.sigmoid(-1000) is 0, and its logarithm infinite; a kernel that computes both has -1000."""
    for function in (torch.sigmoid, torch.exp):
        found = []
        for seed in range(8):
            with Noise(2.0**-51, 2.0**-50, torch.Generator().manual_seed(seed), exact=False):
                found.append(float(function(torch.tensor([-1000.0], dtype=torch.float64))))
        assert 0 < max(found) < 2.0**-1023


def test_where_one_element_leads_a_log_softmax_has_the_noise_of_one() -> None:
    x, found = torch.tensor([0.0, -20.0], dtype=torch.float64), []
    for seed in range(8):
        with Noise(2.0**-51, 2.0**-50, torch.Generator().manual_seed(seed), exact=False):
            found.append(float(torch.log_softmax(x, 0)[0]))
    assert 2.0**-53 < max(found) - min(found) < 2.0**-49
