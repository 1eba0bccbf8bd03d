"""The example inputs of a file of its own: what a chain starts from is as wide as the value beside it."""

from __future__ import annotations

import pytest

from fusegen.base.errors import UserError
from fusegen.chain import derive_all
from fusegen.spec import parse
from fusegen.tools.single_file.example_sizes import example_of

HEAD = "dims: 3\noperands: {c: {dims: [0, 2]}}\nchain:\n"
OF_OPERAND = '  - expr: {name: w, formula: "swish(c)"}\n  - expr: "a * w"\n'


@pytest.mark.parametrize(
    ("first", "x", "c"),
    [
        ('expr: {name: a, formula: "p * q", parts: [p, q]}', [16, 64, 64], [16, 1, 32]),
        ('expr: {name: a, formula: "p * p", parts: {p: 4, _q: 6}}', [16, 64, 10], [16, 1, 4]),
        ("linear: {name: a, in_features: 10, out_features: 4}", [16, 64, 10], [16, 1, 4]),
    ],
)
def test_an_operand_is_as_wide_as_the_value_beside_it(
    first: str, x: list[int], c: list[int]
) -> None:
    spec = parse(f"{HEAD}  - {first}\n{OF_OPERAND}", "beside")
    shapes = [f"torch.randn({shape})" for shape in (x, c)]
    assert example_of(derive_all(spec), {}).inputs == shapes


def test_sizes_that_do_not_fit_are_refused() -> None:
    """The product is as wide as it says, and nothing says how wide x is."""
    steps = "  - tanh: {name: a}\n  - linear: {name: w, of: c, in_features: 5, out_features: 10}\n"
    chains = derive_all(parse(f'{HEAD}{steps}  - expr: "a * tanh(w)"\n', "of_product"))
    with pytest.raises(UserError, match=r"the example has no such sizes: .*--sizes image=8"):
        example_of(chains, {})
    assert example_of(chains, {"image": 10}).inputs[0] == "torch.randn([16, 64, 10])"
