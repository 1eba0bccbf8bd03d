"""Chains that a test file writes as texts: built once for all workers, and held against float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

import pytest
import torch
from conftest import once, shared
from random_programs.build import build_specs
from shared.vocabulary import build_for_devices

from fusegen import load
from fusegen.chain import Chain
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify

#: A chain and its package.
Built = tuple[Chain, ModuleType]


def packages_of_texts(
    factory: pytest.TempPathFactory, name: str, texts: Mapping[str, str]
) -> dict[str, ModuleType]:
    """Return the package of each spec, by its name: for float64 on the CPU, built with those of its file.

    Args:
        factory: where folders come from.
        name: what all of them are called together.
        texts: the specs.
    """
    folder = shared(factory) / name

    def build() -> None:
        folder.mkdir()
        for spec, text in texts.items():
            (folder / f"{spec}.yaml").write_text(text)
        build_specs([folder / f"{n}.yaml" for n in texts], folder / "out", dtypes=("float64",))

    once(factory, name, build)
    return {spec: load(spec, folder / "out") for spec in texts}


def built_texts(
    factory: pytest.TempPathFactory,
    name: str,
    texts: Mapping[str, str],
    dtypes: Mapping[str, Sequence[str]],
) -> dict[str, Built]:
    """Return the chain and the package of each spec, by its name.

    Args:
        factory: where folders come from.
        name: what all of them are called together.
        texts: the specs.
        dtypes: the dtypes that each is compiled for on the CPU.
    """
    folder = shared(factory) / name
    once(factory, name, lambda: build_for_devices(folder, texts, dtypes))
    paths = [folder / "specs" / f"{spec}.yaml" for spec in texts]
    return {p.stem: (pipeline.derive(p), load(p.stem, folder / "generated")) for p in paths}


def hold_each_shape(
    built: Built, shapes: Iterable[tuple[int, ...]], dtype: torch.dtype, device: str
) -> None:
    """Compare a package's values and gradients with float64, at each shape of x."""
    chain, package = built
    for shape in shapes:
        case = verify.make_case(chain, shape, training=False, device=device)
        for error in verify.compare(package, chain, case, dtype):
            assert error.within, f"{shape}: {error}"
