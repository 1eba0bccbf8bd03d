"""The example inputs of a file of its own: what a chain starts from is as wide as the value beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusegen.base.errors import UserError
from fusegen.chain import derive_all
from fusegen.spec import parse
from fusegen.tools.single_file import single_file
from fusegen.tools.single_file.example_sizes import example_of, known_sizes

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
    chains = derive_all(spec)
    assert example_of(chains, {}, *known_sizes(chains, {})).inputs == shapes


#: The product is as wide as it says, and nothing says how wide x is.
OF_PRODUCT = (
    f"{HEAD}  - tanh: {{name: a}}\n  - linear: {{name: w, of: c, in_features: 5, out_features: 10}}\n"
    '  - expr: "a * tanh(w)"\n'
)
OF_TWO_DIMS = (
    "operands: {t: full}\nchain:\n  - tanh: {name: a}\n"
    "  - linear: {name: m, of: t, in_features: 5, out_features: 4}\n"
    '  - expr: "x * a"\n'
)
#: The parts of x have as many columns as those of the product.
OF_PARTS = (
    "dims: 5\noperands: {t: full}\nchain:\n"
    '  - expr: {name: w, formula: "tanh(c) * a - b", parts: [a, b, c]}\n'
    "  - linear: {name: m, of: t, in_features: 5, out_features: 4}\n"
    "  - expr: {formula: a * (1 + p) + q, parts: [p, q], of: m}\n"
    "  - softmax: -1\n"
)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (OF_PRODUCT, ([16, 64, 10], [16, 1, 5])),
        (OF_TWO_DIMS, ([128, 4], [128, 5])),
        (OF_PARTS, ([16, 64, 2, 2, 6], [16, 64, 2, 2, 5])),
    ],
)
def test_sizes_that_fit_are_found(
    text: str, shapes: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    (spec := tmp_path / "late.yaml").write_text(text)
    written = single_file(spec, ("float32",), {})
    assert all(f"        torch.randn({shape}),\n" in written for shape in shapes)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (spec := tmp_path / "late.yaml").write_text(OF_PARTS)
    with pytest.raises(UserError, match=r"the example has no such sizes: .*--sizes image=8"):
        single_file(spec, ("float32",), {"image": 6})
    assert "torch.randn([16, 64, 2, 2, 6])" in single_file(spec, ("float32",), {"image": 2})
