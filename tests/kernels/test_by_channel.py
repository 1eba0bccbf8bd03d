"""Operands of channels where the channels of a place are adjacent: channels-last, and one place a sample."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import DEVICES
from shared.chains_of_texts import Built, built_texts
from shared.layouts import channels_last

from fusegen.tools.check import verify

TEXTS = {
    "scaled_by_channel": "dims: 4\norder: 1\noperands: {scale: channel, bias: channel}\n"
    "chain:\n  - mul: scale\n  - swish\n  - add: bias\n  - mul: input\n",
    # A sum over all elements beside those of channels.
    "shifted_by_channel": "dims: 4\norder: 1\noperands: {factor: scalar, bias: channel}\n"
    "chain:\n  - mul: factor\n  - add: bias\n  - tanh\n",
    # A number that follows from such a sum, by how many elements the call has.
    "averaged_by_channel": "dims: 4\norder: 1\noperands: {scale: channel, bias: channel}\n"
    "chain:\n  - mul: scale\n  - add: bias\n  - tanh\n  - mean\n",
}
DTYPES = (torch.float32, torch.bfloat16)
#: Channels that accesses hold a whole number of, and others; places that blocks hold, and some left over.
SHAPES = [
    *((1, 1, 1, 1), (5, 7, 1, 1), (1023, 7, 1, 1), (4099, 3, 1, 1), (65537, 1, 1, 1)),
    *((33, 96, 2, 1), (3, 65, 5, 7), (31, 3, 31, 33), (2, 8, 3, 4), (2, 1, 4, 4), (1, 1030, 3, 3)),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    dtypes = dict.fromkeys(TEXTS, ("float32", "bfloat16"))
    return built_texts(tmp_path_factory, "by_channel", TEXTS, dtypes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=("float32", "bfloat16"))
@pytest.mark.parametrize("name", TEXTS)
def test_values_and_sums_by_channel(
    name: str, dtype: torch.dtype, device: str, built: dict[str, Built]
) -> None:
    chain, package = built[name]
    for shape in SHAPES:
        case = verify.make_case(chain, shape, training=True, device=device)
        for last in (True, False):
            laid_out = dataclasses.replace(case, x=channels_last(case.x)) if last else case
            for error in verify.compare(package, chain, laid_out, dtype):
                assert error.within, f"{shape}, channels last={last}: {error}"
