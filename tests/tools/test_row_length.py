"""The length of a row is that of what a formula reduces, which need not be x."""

from __future__ import annotations

import pytest
import torch

from fusegen.base.errors import SpecError
from fusegen.chain import derive
from fusegen.spec import parse
from fusegen.tools.bench.plain import tail
from fusegen.tools.check.compare import Comparison, make_case
from fusegen.tools.check.rounding import EXACT

ROWS = "  - mean: {dim: 1, keepdim: true, name: m}\n"
CHAINS = {
    "whole rows beside a reduced x": "  - gelu: {name: a}\n" + ROWS + '  - expr: "x + mean(a)"\n',
    "reduced rows beside a whole x": ROWS + '  - add: input\n  - expr: "x + sum(m) * mean(m)"\n',
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_reference_and_the_programs_agree(name: str) -> None:
    chain = derive(parse("chain:\n" + CHAINS[name], "rows"))
    case = make_case(chain, (4, 6), training=False)
    comparison = Comparison(chain, case, torch.float32)  # of float64 the truth is the programs'
    truth = comparison.truth()
    for wanted, found in zip(truth, comparison.programs(EXACT), strict=True):
        torch.testing.assert_close(found, wanted)
    x = comparison.given["x"].double()
    torch.testing.assert_close(tail(chain, {})(x), truth[0])


def test_rows_of_both_lengths_in_one_formula_are_refused() -> None:
    text = "chain:\n" + ROWS + '  - add: input\n  - expr: "softmax(x) + sum(m)"\n'
    with pytest.raises(SpecError, match="rows that an earlier step has reduced, and rows that"):
        derive(parse(text, "rows"))
