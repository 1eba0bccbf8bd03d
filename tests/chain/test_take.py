"""Elements of rows taken by an index, compiled: where that is no column, and on the GPU in every form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import DTYPES, dtype_name
from shared.vocabulary import chain_text

from fusegen import load
from fusegen.toolchain import builder, pipeline
from fusegen.tools.check import verify

#: Indices that are no column of five: a load by any of them would read what is not the tensor's.
WRONG = [-1, 5, -(2**40), 2**40]
#: Rows of each form; of one class the loss is 0, and what is left is rounding. Those that are read once are
#: streamed by a block where there are enough of them.
SHAPES = [
    *((700, 2), (700, 5), (700, 64), (700, 1000), (3000, 4104), (3, 8192), (400, 32768)),
    *((3, 2**17), (300, 2**17 + 8), (3, 2**18 + 8), (3, 2**18 + 1)),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_what_is_no_column_is_not_read(dtype: torch.dtype, vocabulary: Path) -> None:
    """An ignored row counts for nothing; a wrong class makes its row NaN. Neither gets a gradient."""
    built = load(
        "only_cross_entropy_1", vocabulary / "generated"
    )  # reduction: none, ignore_index: 2
    target = torch.tensor([2, 0, *WRONG, 4])
    x = torch.randn(len(target), 5).to(dtype).requires_grad_()
    weight = torch.rand(5).to(dtype)
    losses = built.apply(x, target, weight)
    right = torch.isin(target, torch.arange(5)) & (target != 2)
    assert losses[0] == 0
    assert torch.equal(losses.isnan(), ~torch.isin(target, torch.arange(5)))
    (gradient,) = torch.autograd.grad(losses[right].sum(), x)
    assert torch.equal((gradient != 0).any(dim=1), right)
    assert not gradient[~right].any()


@pytest.mark.parametrize(
    ("name", "whole"),
    [("only_nll_loss_1", True), ("only_causal_mask_0", True), ("only_gelu_0", False)],
)
def test_columns_that_are_known_by_their_number_stay_together(
    name: str, whole: bool, vocabulary: Path
) -> None:
    """A shard of the columns would take another element, and put its gradient elsewhere."""
    text = (vocabulary / "generated" / name / "__init__.py").read_text()
    assert ("by_column=True" not in text) is whole


def test_classes_of_32_bits(vocabulary: Path) -> None:
    built = load("only_nll_loss_1", vocabulary / "generated")  # reduction: none
    x = torch.randn(4, 5, requires_grad=True)
    weight, target = torch.rand(5), torch.tensor([0, 4, -100, 3])
    losses = built.apply(x, target, weight), built.apply(x, target.int(), weight)
    assert torch.equal(*losses)
    (short,) = torch.autograd.grad(losses[1].sum(), x)
    assert torch.equal(short, *torch.autograd.grad(losses[0].sum(), x))
    with pytest.raises(TypeError, match="int64"):
        built.apply(x, target.short(), weight)


def test_rows_without_columns(vocabulary: Path) -> None:
    built = load("only_nll_loss_1", vocabulary / "generated")  # reduction: none
    losses = built.apply(torch.empty(3, 0), torch.tensor([0, -100, 1]), torch.empty(0))
    assert losses.isnan().tolist() == [True, False, True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(
    "name", ["loss_after_an_activation", "loss_of_dropped_logits", "class_weights"]
)
@pytest.mark.usefixtures("native")
def test_every_form_of_a_row(name: str, tmp_path: Path) -> None:
    """From lanes of a warp to streamed rows: the loss, and the gradients of all that it is taken from."""
    text = {
        "class_weights": "operands: {target: {kind: row, dtype: int64}, weight: col}\nchain:\n"
        "  - nll_loss: {target: target, weight: weight, ignore_index: 1}\n"
    }
    path = tmp_path / f"{name}.yaml"
    path.write_text(text.get(name) or chain_text(name))
    builder.build([path], out=tmp_path / "out")
    chain, built = pipeline.derive(path), load(name, tmp_path / "out")
    for dtype in DTYPES:
        for rows, cols in SHAPES:
            case = verify.make_case(
                chain, (rows, cols), training=len(chain.modes) == 2, device="cuda"
            )
            case.operands["target"][: rows // 2 : 2] = 1 if name == "class_weights" else -100
            for error in verify.compare(built, chain, case, dtype):
                assert error.within, f"{dtype}, {rows}x{cols}: {error}"
