"""`fusegen kernels-hub`: a package as the library `kernels` of Hugging Face loads it.

The library is no dependency of fusegen, so most tests do what it does: its importer.py and layer/layer.py.
The last one runs it where it is installed, as `make` does.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import inspect
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT
from shared.command import fusegen_here, python_in
from torch import nn

from fusegen.base import stamp
from fusegen.base.errors import UserError
from fusegen.tools.shipping import hub, write_hub_kernel
from fusegen.tools.shipping.layers import layer_name

LAYER, NORM = "matmul_swish_scale", "gemm_batchnorm_scale_softmax"


class Layer(nn.Module):
    """What a model may have in the place of a package."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul = nn.Linear(24, 40)
        self.scaling_factor = 1.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(self.matmul(x)) * self.scaling_factor


class Norm(nn.Module):
    """The same with running averages."""

    def __init__(self) -> None:
        super().__init__()
        self.gemm, self.bn = nn.Linear(24, 40), nn.BatchNorm1d(40)
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.bn(self.gemm(x)) * self.scale).softmax(1)


@pytest.fixture
def loaded() -> Iterator[Any]:
    """Loads a build variant as the library does; the modules are forgotten afterwards."""
    names = []

    def load(variant: Path) -> ModuleType:
        name = json.loads((variant / "metadata.json").read_text())["id"]
        spec = importlib.util.spec_from_file_location(name, variant / "__init__.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        names.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in [n for n in sys.modules if n.split(".")[0] in names]:
        del sys.modules[name]


def variant_of(package: Path, out: Path) -> Path:
    """Return the folder of the variant for the CPU; with nvcc and a GPU there is another."""
    kernel = write_hub_kernel(package, 3, "mit", out)
    return kernel.folder / "build" / kernel.variants[0]


@pytest.mark.parametrize(("name", "kind"), [(LAYER, Layer), (NORM, Norm)])
def test_its_layer_replaces_the_forward_of_a_module(
    name: str, kind: type[nn.Module], generated: Path, tmp_path: Path, loaded: Any
) -> None:
    kernel = loaded(variant_of(generated / name, tmp_path))
    layer = getattr(kernel.layers, layer_name(name))
    assert issubclass(layer, nn.Module) and layer.__init__ is nn.Module.__init__
    members = {member for member, _ in inspect.getmembers(layer)}
    assert members - {member for member, _ in inspect.getmembers(nn.Module)} == {
        "can_torch_compile"
    }
    kinds = [
        [p.kind for p in inspect.signature(c.forward).parameters.values()] for c in (kind, layer)
    ]
    assert kinds[0] == kinds[1]

    torch.manual_seed(0)
    eager, fused = kind(), kind()
    fused.load_state_dict(eager.state_dict())
    fused.forward = MethodType(layer.forward, fused)  # type: ignore[method-assign]
    x = torch.randn(16, 24)
    for _ in range(2):
        for module in (eager, fused):
            module(x).square().sum().backward()
        for one, other in zip(eager.parameters(), fused.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)
        for one, other in zip(eager.buffers(), fused.buffers(), strict=True):
            torch.testing.assert_close(other, one)
        # With a hook, a package calls the submodule: by a method that the module here does not have.
        for module in fused.children():
            module.register_forward_hook(lambda *_: None)


def test_metadata(generated: Path, tmp_path: Path) -> None:
    variant = variant_of(generated / LAYER, tmp_path)
    assert re.fullmatch(r"torch-stable-abi211-cpu-\w+-linux", variant.name)
    about = json.loads((variant / "metadata.json").read_text())
    digest = about.pop("digest")
    assert about == {
        "name": "matmul-swish-scale",
        "id": stamp.read(generated / LAYER / "_cpu.so").namespace(LAYER),  # of its operators
        "version": 3,
        "license": "mit",
        "python-depends": [],
        "backend": {"type": "cpu"},
    }
    files = {
        p.relative_to(variant).as_posix(): base64.b64encode(hashlib.sha256(p.read_bytes()).digest())
        for p in variant.rglob("*")
        if p.is_file() and p.name != "metadata.json"
    }
    assert {name: hashed.encode() for name, hashed in digest["files"].items()} == files
    assert {"__init__.py", "layers.py", "_cpu.so", "element.h", "_fusegen/LICENSE"} <= {*files}


def test_cuda_is_a_variant_of_its_own(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "generated" / LAYER
    shutil.copytree(generated / LAYER, package, ignore=shutil.ignore_patterns("__pycache__"))
    said = {"device": "cuda", "architectures": ["100", "90"]}
    library = shutil.copy(package / "_cpu.so", package / "_cuda.so")
    stamp.append(library, {**stamp.read(library).body(), **said})
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.93'\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(hub, "find_nvcc", lambda: nvcc)
    kernel = write_hub_kernel(package, 1, "mit", tmp_path / "hub")
    cpu, cuda = (kernel.folder / "build" / variant for variant in kernel.variants)
    assert cuda.name == cpu.name.replace("-cpu-", "-cu128-")
    assert not (cpu / "_cuda.so").exists() and (cuda / "_cuda.so").exists()
    backend = json.loads((cuda / "metadata.json").read_text())["backend"]
    assert backend == {"type": "cuda", "archs": ["9.0", "10.0+PTX"]}
    monkeypatch.setattr(hub, "find_nvcc", lambda: None)
    with pytest.raises(UserError, match="run this where the package was built"):
        write_hub_kernel(package, 1, "mit", tmp_path / "hub")


def test_the_command_writes_again_what_is_its_own(generated: Path, tmp_path: Path) -> None:
    command = ("kernels-hub", str(generated / LAYER), "--license", "mit")
    done = fusegen_here(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "layer MatmulSwishScale" in done.stdout
    folder = tmp_path / "hub" / "matmul-swish-scale"
    (variant,) = (folder / "build").glob("*-cpu-*")
    other = folder / "build" / "torch-stable-abi211-cu126-x86_64-linux"
    other.mkdir()
    assert "`kernel.apply` is a function, `kernel.Module` an" in (folder / "README.md").read_text()
    (folder / "README.md").write_text("mine")
    (variant / "left.py").touch()
    assert fusegen_here(*command, cwd=tmp_path).returncode == 0
    assert not (variant / "left.py").exists()
    assert other.exists() and (folder / "README.md").read_text() == "mine"


def test_a_name_that_the_hub_does_not_take(generated: Path, tmp_path: Path) -> None:
    shutil.copytree(generated / LAYER, tmp_path / "x")
    done = fusegen_here("kernels-hub", "x", cwd=tmp_path)
    assert done.returncode == 2
    assert "x: the hub takes names of" in done.stderr
    assert not (tmp_path / "hub").exists()


def test_the_page_runs_with_the_library(generated: Path, tmp_path: Path) -> None:
    """What docs/shipping.md shows, where the library `kernels` is installed."""
    # tests/kernels would be found by the library's name alone.
    pytest.importorskip("kernels.layer", reason="the library kernels of Hugging Face is not there")
    (tmp_path / "generated").symlink_to(generated)
    page = (ROOT / "docs" / "shipping.md").read_text()
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "kernelize" in b)
    (tmp_path / "page.py").write_text(block + "print(list(model(torch.randn(5, 24)).shape))\n")
    python_in(tmp_path, "-m", "fusegen", "kernels-hub", "matmul_swish_scale")
    assert python_in(tmp_path, "page.py").strip() == "[5, 1]"
