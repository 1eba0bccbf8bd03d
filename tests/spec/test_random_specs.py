"""Nothing but a SpecError ever comes out of a spec, whatever is in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusegen.base.errors import SpecError
from fusegen.spec import parse

WORDS = st.sampled_from(
    [
        *("chain", "arguments", "operands", "order", "description", "name", "kind", "type", "init"),
        *("swish", "add", "linear", "expr", "softmax", "dim", "float", "col", "ones", "x", "w"),
    ]
)
DATA = st.recursive(
    st.one_of(WORDS, st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)


def error_of(text: str) -> SpecError | None:
    """Return the error in a spec's text, or None if there is none."""
    try:
        parse(text, "example")
    except SpecError as error:
        return error
    return None


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.dictionaries(WORDS, DATA, max_size=5), DATA)
def test_random_data_raises_nothing_else(data: dict[str, Any], steps: Any) -> None:
    import yaml

    error = error_of(yaml.safe_dump({"chain": steps, **data}, allow_unicode=True))
    assert error is None or (error.line and "pydantic" not in str(error))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_random_text_raises_nothing_else(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text, "example")
