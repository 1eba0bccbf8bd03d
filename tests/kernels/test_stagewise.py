"""Rows that lie between one another: groups of channels in channels-last, and channels of images."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import DEVICES
from shared.chains_of_texts import Built, built_texts
from shared.layouts import channels_last, copied
from torch._subclasses import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from fusegen.tools.check import verify

#: Groups of one, of several and of all channels; channels that accesses hold a whole number of, and others.
TEXTS = {
    "apart_groups": "dims: 4\noperands: {other: full, factor: scalar}\nchain:\n"
    "  - group_norm: {features: 32, num_groups: 4}\n  - swish\n  - mul: factor\n  - add: other\n",
    "apart_odd_groups": "dims: 4\norder: 1\nchain:\n"
    "  - group_norm: {features: 21, num_groups: 7}\n  - tanh\n",
    "apart_one_group": "dims: 5\norder: 1\nchain:\n  - gelu\n"
    "  - group_norm: {features: 6, num_groups: 1}\n",
    # A provisional maximum, and sums by channel of numbers of rows and over everything.
    "apart_channels": "dims: 4\norder: 1\noperands: {scale: channel, factor: scalar}\nchain:\n"
    '  - mul: scale\n  - expr: {formula: "softmax(x - mean(x))", dim: [2, 3]}\n  - mul: factor\n',
}
CHANNELS = {"apart_groups": 32, "apart_odd_groups": 21, "apart_one_group": 6}
DTYPES = (torch.float32, torch.bfloat16)
#: Samples, and places of each: few, many, and numbers that steps of the walk and slices do not divide.
PLACES = [(3, (5, 7)), (2, (1, 3)), (1, (129, 127)), (65, (16, 16)), (2, (67, 31))]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    dtypes = dict.fromkeys(TEXTS, ("float32", "bfloat16"))
    return built_texts(tmp_path_factory, "stagewise", TEXTS, dtypes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=("float32", "bfloat16"))
@pytest.mark.parametrize("name", TEXTS)
def test_rows_between_one_another(
    name: str, dtype: torch.dtype, device: str, built: dict[str, Built]
) -> None:
    chain, package = built[name]
    for samples, places in PLACES:
        dims = (1, *places) if name == "apart_one_group" else places
        for channels in (CHANNELS[name],) if name in CHANNELS else (1, 8, 13):
            shape = (samples, channels, *dims)
            case = verify.make_case(chain, shape, training=True, device=device)
            laid_out = dataclasses.replace(case, x=channels_last(case.x))
            for error in verify.compare(package, chain, laid_out, dtype):
                assert error.within, f"{shape}: {error}"


@pytest.mark.parametrize("device", DEVICES)
def test_groups_are_not_copied(device: str, built: dict[str, Built]) -> None:
    """x, another operand and the gradient keep their format, whether samples lie side by side or not."""
    _, package = built["apart_groups"]
    whole = channels_last(torch.randn(4, 32, 6, 5, device=device))
    row, factor = torch.rand(32, device=device), torch.tensor(2.0, device=device)
    for x in (channels_last(torch.randn(4, 32, 6, 5, device=device)), whole[::2]):
        given = (x.requires_grad_(), torch.randn_like(x), factor, row, row)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            y = package.apply(*given)
            (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
        assert not copied(seen)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert gradient.is_contiguous(memory_format=torch.channels_last)
        with FakeTensorMode() as mode:
            assert package.apply(*map(mode.from_tensor, given)).stride() == y.stride()
