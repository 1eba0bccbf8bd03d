"""Tensors between others are read where they are, and operands along dims that are not neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import built_alone
from shared.layouts import copied


@pytest.mark.parametrize("chain", ["[swish]", "[softmax]"])
def test_a_chunk_of_rows_is_not_copied(chain: str, tmp_path: Path) -> None:
    text = f"order: 1\ndtypes: [float32]\nchain: {chain}\n"
    apply = built_alone(tmp_path, "of_a_chunk", text, [torch.float32]).apply
    whole = torch.randn(6, 3 * 33)
    for x in (whole[:, 33:66], whole[::2, 5:38], whole.view(6, 3, 33)[:, 1]):
        with torch.profiler.profile() as profile:
            found = apply(x)
        assert not copied(profile)
        wanted = torch.nn.functional.silu(x) if "swish" in chain else x.softmax(-1)
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dims", [(1, 3), (0, 3), (0, 2), (1, 2)])
def test_an_operand_along_any_two_dims(dims: tuple[int, int], tmp_path: Path) -> None:
    text = (
        f"dims: 4\norder: 1\ndtypes: [float64]\noperands: {{b: {{dims: {list(dims)}}}}}\n"
        "chain: [add: b, tanh]\n"
    )
    apply = built_alone(tmp_path, "along_two", text, [torch.float64]).apply
    shape = (2, 3, 5, 7)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    own = [n if dim in dims else 1 for dim, n in enumerate(shape)]
    b = torch.randn(own, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(shape, dtype=torch.float64)
    for given in (x, x.detach().to(memory_format=torch.channels_last).requires_grad_()):
        found = apply(given, b)
        wanted = (x + b).tanh()
        torch.testing.assert_close(found, wanted)
        of_found = torch.autograd.grad(found, (given, b), cotangent)
        torch.testing.assert_close(of_found, torch.autograd.grad(wanted, (x, b), cotangent))
