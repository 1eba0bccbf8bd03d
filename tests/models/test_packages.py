"""The folder in which packages of models are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fusegen.models.packages import is_built, packages_of
from fusegen.models.spec_text import PackageSpec
from fusegen.toolchain import builder

pytestmark = pytest.mark.slow


def test_what_is_there_and_whole_is_loaded_without_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PackageSpec("kept", "order: 0\ndtypes: [float32]\nchain: [relu]\n")
    builds: list[Any] = []
    build = builder.build
    monkeypatch.setattr(builder, "build", lambda *a, **k: (builds.append(a), build(*a, **k)))
    assert not is_built(spec, tmp_path)
    first, refused = packages_of([spec], tmp_path, build=True)
    assert (refused, len(builds)) == ({}, 1)
    again, refused = packages_of([spec], tmp_path, build=True)
    assert (again, refused, len(builds)) == (first, {}, 1)
    library = tmp_path / "generated" / "kept" / "_cpu.so"
    content = library.read_bytes()
    library.unlink()  # this process has loaded it
    library.write_bytes(content[:-5])
    assert is_built(spec, tmp_path)  # which loading denies
    repaired, refused = packages_of([spec], tmp_path, build=True)
    assert (refused, len(builds)) == ({}, 2)
    x = torch.randn(3, 4)
    assert torch.equal(repaired["kept"].apply(x), x.relu())
    other = PackageSpec("kept", spec.text.replace("relu", "tanh"))
    assert not is_built(other, tmp_path)
