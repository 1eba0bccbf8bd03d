"""What tests of models share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from shared.by_torch import packages

from fusegen.models import backend


@pytest.fixture
def specs_by_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch compute each spec, so that nothing is built."""
    monkeypatch.setattr(backend, "packages_of", packages)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
