"""`mode: training`: kernels for training alone, as regions of a model in training need them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import built_alone
from torch import nn

from fusegen.base.errors import SpecError, UserError
from fusegen.chain import derive
from fusegen.models import FusegenBackend
from fusegen.models.imported import import_model
from fusegen.spec import parse
from fusegen.tools.check import verify
from fusegen.tools.single_file import single_file

CHAIN = """
order: 1
dtypes: [float64]
dims: 3
chain:
  - batch_norm: {features: 6}
  - relu
  - dropout: {p: 0.5}
"""


def test_other_modes_have_no_kernels() -> None:
    both, alone = derive(parse(CHAIN, "a")), derive(parse(f"mode: training{CHAIN}", "a"))
    assert [mode.name for mode in both.modes] == ["train", "eval"]
    assert [mode.name for mode in alone.modes] == ["train"]
    assert list(map(str, alone.modes[0].programs)) == list(map(str, both.modes[0].programs))
    assert alone.moded
    same = "mode: training\nchain: [relu]\n"
    assert [mode.name for mode in derive(parse(same, "a")).modes] == ["same"]
    with pytest.raises(SpecError, match="valid here: both, training"):
        parse(f"mode: never{CHAIN}", "a")


@pytest.mark.slow
def test_it_trains_and_says_that_it_does_not_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "mode: training\norder: 1\ndtypes: [float64]\nchain: [tanh, dropout: {p: 0.5}]\n"
    package = built_alone(tmp_path, "alone", text, [torch.float64])
    verify.gradcheck(package, derive(parse(text, "alone")), training=True, device="cpu")
    model, x = package.Module().double(), torch.randn(40, 6, dtype=torch.float64)
    kept = model(x) / (2 * x.tanh())
    assert sorted({round(number, 12) for number in kept.flatten().tolist()}) == [0, 1]
    with pytest.raises(ValueError, match="alone: called in evaluation, but built for training"):
        model.eval()(x)
    checked: list[bool] = []
    monkeypatch.setattr(
        verify, "_check_mode", lambda _, __, training, *___: [checked.append(training)]
    )
    verify.check([tmp_path / "alone.yaml"], tmp_path)
    assert checked == [True]


def test_a_single_file_needs_both(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"mode: training{CHAIN}")
    with pytest.raises(UserError, match="leave out `mode:`"):
        single_file(path, ["float64"], {})


@pytest.mark.slow
@pytest.mark.usefixtures("specs_by_torch")
def test_regions_in_training_are_for_training_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(6), nn.ReLU())
    x = torch.randn(4, 6)
    texts: dict[bool, Any] = {}
    for train in (True, False):
        made = FusegenBackend(everything=True)
        torch.compile(model.train(train), backend=made)(x)
        (region,) = made.report.fused
        texts[train] = region.spec
    assert "mode: training\n" in texts[True]
    assert "mode:" not in texts[False]
    given = inspect.signature(model.forward).bind(x)
    (imported,), _ = import_model(
        model.train(), given, title="model"
    )  # people evaluate with it, too
    assert "mode:" not in imported.text
