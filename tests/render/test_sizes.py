"""Sizes of submodules that are lists of numbers and int arguments."""

from __future__ import annotations

import pytest

from fusegen.chain import derive
from fusegen.render.module import module_context
from fusegen.spec.read import parse

SIZES = {
    "conv2d: {kernel_size: [1, reach], padding: [0, pad]}": "nn.Conv2d(in_channels, out_channels, "
    "(1, reach), padding=(0, pad), device=device, dtype=dtype)",
    "max_pool2d: {kernel_size: [reach, 2], padding: 0}": "nn.MaxPool2d((reach, 2), padding=0, "
    "ceil_mode=False)",
}


@pytest.mark.parametrize("step", SIZES)
def test_a_list_may_name_arguments(step: str) -> None:
    arguments = "{in_channels: int, out_channels: int, reach: int, pad: int}"
    spec = parse(f"arguments: {arguments}\nchain:\n  - {step}\n  - gelu\n", "sizes")
    members = module_context(derive(spec))["members"]
    assert isinstance(members, list)
    assert members[0].endswith(SIZES[step])
