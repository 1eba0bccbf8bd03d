"""The five examples of operands in docs/specs.md, run: their programs give what a person writes in torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch import Tensor
from torch.nn import functional as F

from fusegen.toolchain import pipeline
from fusegen.tools.check.compare import Comparison
from fusegen.tools.check.rounding import EXACT
from fusegen.tools.check.verify import make_case

TEXT = (ROOT / "docs" / "specs.md").read_text()
Given = Mapping[str, Tensor]


def biased(x: Tensor, o: Given) -> Tensor:
    return F.rms_norm(x + o["bias"], x.shape[-1:], o["weight"], 1e-6)


def grouped(x: Tensor, o: Given) -> Tensor:
    weight, bias = o["group_norm_weight"], o["group_norm_bias"]
    return F.group_norm(x, 4, weight, bias) * o["scale"].reshape(-1, 1, 1)


def modulated(x: Tensor, o: Given) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + o["scale"]) + o["shift"]


def turned(x: Tensor, o: Given) -> Tensor:
    x = F.rms_norm(x, x.shape[-1:], o["weight"], 1e-6)
    first, second = x.chunk(2, -1)
    return x * o["cos"] + torch.cat((-second, first), -1) * o["sin"]


def normed(x: Tensor, o: Given) -> tuple[Tensor, Tensor]:
    total = x + o["residual"]
    return F.rms_norm(total, x.shape[-1:], eps=1e-6), total


EXAMPLES: dict[
    str, tuple[str, tuple[int, ...], Callable[[Tensor, Given], Tensor | tuple[Tensor, ...]]]
] = {
    "a bias": ("add: bias\n  - rms_norm", (5, 8), biased),
    "group norm": ("group_norm: {num_groups: 4, features: 32}\n  - mul", (2, 32, 3, 5), grouped),
    "modulation by sample": ("scale: {dims: [0, 2]}, shift", (3, 5, 8), modulated),
    "rotary position embedding": ("rope(x, cos, sin)", (2, 3, 5, 8), turned),
    "a residual and its norm": ("outputs: [norm, total]", (5, 8), normed),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_torch_computes(name: str, tmp_path: Path) -> None:
    held, shape, written = EXAMPLES[name]
    assert f"**{name[0].upper()}{name[1:]}" in TEXT
    (text,) = (b for b in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if held in b)
    path = tmp_path / "example.yaml"
    path.write_text(text)
    chain = pipeline.derive(path)
    case = make_case(chain, shape, training=False)
    comparison = Comparison(chain, case, torch.float32)
    found, truth = comparison.programs(EXACT), comparison.truth()
    for result, got, true in zip(comparison.names, found, truth, strict=True):
        torch.testing.assert_close(got, true, rtol=1e-7, atol=1e-9, msg=f"{result}: {{}}".format)
    given = {name: tensor.double() for name, tensor in comparison.given.items()}
    values = written(given["x"], given)
    for got, true in zip(found, values if isinstance(values, tuple) else (values,), strict=False):
        torch.testing.assert_close(got, true, rtol=1e-7, atol=1e-9)
