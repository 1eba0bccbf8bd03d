"""`fusegen package`: a wheel of built packages that needs torch alone."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib
import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from packaging.requirements import Requirement
from shared.command import fusegen_here

import fusegen
from fusegen.base import stamp
from fusegen.base.errors import UserError
from fusegen.tools.shipping import wheel as shipping
from fusegen.tools.shipping import write_wheel
from fusegen.tools.shipping.names import check_name, check_version
from fusegen.tools.shipping.private_runtime import relative

LAYER, NORM = "matmul_swish_scale", "gated_rms_norm"
#: The blocks of docs/shipping.md: a spec, commands, what the last prints, a program, and what that prints.
PAGE = (ROOT / "docs" / "shipping.md").read_text()
SPEC, COMMANDS, SAID, PROGRAM, PRINTED = re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.M | re.S)[:5]

#: Run by a Python that has torch and two wheels alone: a step of training, compared with torch.
ALONE = """
import importlib.util, io, shutil
assert importlib.util.find_spec("fusegen") is None
assert not any(map(shutil.which, ("cc", "c++", "gcc", "g++", "clang", "clang++", "nvcc", "ninja")))

import torch
from torch import nn
from kernels_one.matmul_swish_scale import Module


class Eager(nn.Module):
    def __init__(self):
        super().__init__()
        self.matmul = nn.Linear(24, 40)

    def forward(self, x):
        return nn.functional.silu(self.matmul(x)) * 2


torch.manual_seed(0)
x, target = torch.randn(16, 24), torch.randn(16, 40)
eager, fused = Eager(), Module(24, 40)
fused.load_state_dict(eager.state_dict())
for model in (eager, fused):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    nn.functional.mse_loss(model(x), target).backward()
    optimizer.step()
assert list(fused.state_dict()) == list(eager.state_dict())
for name, value in eager.state_dict().items():
    torch.testing.assert_close(fused.state_dict()[name], value, rtol=1e-5, atol=1e-6)
torch.testing.assert_close(fused(x), eager(x), rtol=1e-5, atol=1e-6)

file = io.BytesIO()
torch.save(fused, file)
file.seek(0)
assert torch.equal(torch.load(file, weights_only=False)(x), fused(x))

import kernels_one, kernels_two  # the same chain twice: torch has its operators once
other = kernels_two.matmul_swish_scale
assert other.Module is not Module and kernels_two.__version__ == "2.1"
again = other.Module(24, 40)
again.load_state_dict(fused.state_dict())
assert torch.equal(again(x), fused(x))
norm = kernels_one.gated_rms_norm.apply(x, torch.ones(24))
root = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
torch.testing.assert_close(norm, nn.functional.mish(root), rtol=1e-5, atol=1e-6)
print("works")
"""


def torch_alone(folder: Path) -> None:
    """Make links in a folder to torch and what it requires, and to nothing else that is installed."""
    folder.mkdir()
    wanted, found = ["torch"], set()
    while wanted:
        name = wanted.pop()
        distribution = importlib.metadata.distribution(name)
        if distribution.metadata["Name"] in found:
            continue
        found.add(distribution.metadata["Name"])
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
        needs = map(Requirement, distribution.requires or ())
        wanted += [n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]


@pytest.fixture(scope="module")
def wheels(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two wheels that both have one chain."""
    out = tmp_path_factory.mktemp("dist")
    one = write_wheel([generated / LAYER, generated / NORM], "kernels_one", "1.0", out)
    two = write_wheel([generated / LAYER], "kernels_two", "2.1", out)
    return [one.path, two.path]


def of_any_machine(text: str) -> str:
    """Return what the command prints without what depends on the machine."""
    return re.sub(r"linux_\w+|\d+\.\d+ MB|glibc [\d.]+", "", text)


@pytest.mark.slow
def test_it_trains_where_neither_a_compiler_nor_fusegen_is(
    wheels: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's example and two wheels."""
    monkeypatch.delenv("FUSEGEN_NATIVE", raising=False)
    (tmp_path / "my_act.yaml").write_text(SPEC)
    for command in COMMANDS.splitlines():
        said = fusegen_here(*command.split()[1:], cwd=tmp_path)
        assert said.returncode == 0, said.stderr
    assert of_any_machine(said.stdout) == of_any_machine(SAID)
    wheels = [*wheels, *(tmp_path / "dist").glob("*.whl")]
    folder = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    torch_alone(tmp_path / "torch")
    (site / "torch.pth").write_text(f"{tmp_path / 'torch'}\n")
    environment = {"PATH": str(folder / "bin"), "HOME": str(tmp_path)}
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    # Without an index, pip refuses a wheel whose requirements are not there.
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*pip, "install", *quiet, *wheels], check=True, env=environment)
    done = subprocess.run(
        [folder / "bin" / "python", "-c", PROGRAM + ALONE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{PRINTED}works\n", done.stderr


@pytest.fixture
def unpacked(wheels: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the first wheel's package, which can be imported."""
    zipfile.ZipFile(wheels[0]).extractall(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "kernels_one"
    for name in [n for n in sys.modules if n.split(".")[0] == "kernels_one"]:
        del sys.modules[name]


def test_a_wheel_and_fusegen_share_the_operators_of_a_package(
    unpacked: Path, generated: Path
) -> None:
    """Twice, as after removing the package from `sys.modules`: torch registers nothing again."""
    own = fusegen.load(NORM, generated)
    x = torch.randn(5, 24, requires_grad=True)
    values = [own.apply(x, torch.ones(24))]
    modules = [own]
    for _ in range(2):
        module = importlib.import_module(f"{unpacked.name}.{NORM}")
        assert str(unpacked) in str(module.__file__)
        modules.append(module)
        values.append(module.apply(x, torch.ones(24)))
        for name in [n for n in sys.modules if n.split(".")[0] == unpacked.name]:
            del sys.modules[name]
    assert len(set(map(id, modules))) == 3
    assert len({module._chain.namespace for module in modules}) == 1
    gradients = [torch.autograd.grad(value.sum(), x)[0] for value in values]
    assert all(map(torch.equal, values, values[1:])) and all(
        map(torch.equal, gradients, gradients[1:])
    )


def test_a_spoiled_wheel_says_what_to_install(unpacked: Path) -> None:
    library = unpacked / NORM / "_cpu.so"
    library.write_bytes(library.read_bytes()[:-1])
    with pytest.raises(ImportError, match=r"cut short.*; install kernels_one again"):
        importlib.import_module(f"{unpacked.name}.{NORM}")


def test_the_names_of_its_packages_are_its_attributes(unpacked: Path) -> None:
    module = importlib.import_module(unpacked.name)
    assert {LAYER, NORM, "__version__"} <= {*dir(module)}
    assert module.gated_rms_norm is importlib.import_module(f"{unpacked.name}.{NORM}")
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        module.other  # noqa: B018


def test_what_is_in_it(wheels: list[Path]) -> None:
    assert re.fullmatch(r"kernels_one-1\.0-py3-none-linux_\w+\.whl", wheels[0].name)
    archive = zipfile.ZipFile(wheels[0])
    names = archive.namelist()
    about = "kernels_one-1.0.dist-info"
    record = archive.read(f"{about}/RECORD").decode()
    rows = {path: digest for path, digest, _ in csv.reader(io.StringIO(record))}
    assert {*rows} == {*names}
    for name in {*names} - {f"{about}/RECORD"}:
        digest = hashlib.sha256(archive.read(name)).digest()
        assert rows[name] == f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
    metadata = archive.read(f"{about}/METADATA").decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (needs_torch,) = [d for d in project["dependencies"] if d.startswith("torch")]
    assert f"\nRequires-Dist: {needs_torch}\n" in metadata
    assert metadata.count("Requires-Dist") == 1
    assert f"\nRequires-Python: {project['requires-python']}\n" in metadata
    assert "Apache License" in archive.read(f"{about}/licenses/fusegen/LICENSE").decode()
    assert "Module(in_features, out_features, scaling_factor=2.0)(x)" in metadata
    wheel = archive.read(f"{about}/WHEEL").decode()
    assert "Root-Is-Purelib: false" in wheel
    kernels = {f"kernels_one/{LAYER}/{name}" for name in (*stamp.SOURCES, "_cpu.so")}
    assert kernels <= {*names}
    assert not [name for name in names if "alone" in name or "__pycache__" in name]


def test_imports_of_fusegen_become_relative() -> None:
    code = (
        "from fusegen.base import paths\nif paths:\n    from fusegen.runtime.chain import Chain\n"
    )
    assert relative(code, 1, "") == (
        "from ..base import paths\nif paths:\n    from ..runtime.chain import Chain\n"
    )
    assert relative(code, 1, "_fusegen").startswith("from .._fusegen.base import paths\n")
    with pytest.raises(AssertionError, match="an import that is not"):
        relative("import fusegen.base\n", 1, "")


@pytest.fixture
def package(generated: Path, tmp_path: Path) -> Path:
    """The folder of a copy of a built package, for a test to spoil."""
    copy = tmp_path / "generated" / LAYER
    shutil.copytree(generated / LAYER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def refused(package: Path, message: str, *arguments: str) -> None:
    command = ("package", f"generated/{LAYER}", "--name", "kernels_three", *arguments)
    done = fusegen_here(*command, cwd=package.parent.parent)
    assert done.returncode == 2, done.stdout
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (package.parent.parent / "dist").exists()


def restamped(library: Path, **changes: object) -> None:
    stamp.append(library, {**stamp.read(library).body(), **changes})


def test_a_package_that_is_not_compiled(package: Path) -> None:
    (package / "_cpu.so").unlink()
    refused(package, f"generated/{LAYER} is not compiled; run `fusegen build {LAYER}`")


def test_a_package_that_is_not_there(package: Path) -> None:
    shutil.rmtree(package)
    refused(package, f"generated/{LAYER}: there is no package; run `fusegen build {LAYER}`")


def test_a_library_for_one_machine_alone(package: Path) -> None:
    restamped(package / "_cpu.so", features=["sse2"])
    refused(package, "this machine alone, .*; run `fusegen build .*` with --portable")


def test_a_library_of_other_sources(package: Path) -> None:
    (package / "element.h").write_text("")
    refused(package, "another element.h than there is now; run `fusegen build")


def test_a_package_of_another_version(package: Path) -> None:
    code = (package / "__init__.py").read_text().replace('made_by("', 'made_by("9.')
    (package / "__init__.py").write_text(code)
    refused(package, "fusegen 9.* generated this package, and this is")


def test_a_library_for_cuda_of_another_build(package: Path) -> None:
    restamped(shutil.copy(package / "_cpu.so", package / "_cuda.so"), device="cuda", headers="0")
    refused(package, "_cuda.so was compiled from another .* with --backend cuda, or remove it")


def test_the_gpus_are_said(package: Path) -> None:
    architectures = {"device": "cuda", "architectures": ["90", "80"]}
    restamped(shutil.copy(package / "_cpu.so", package / "_cuda.so"), **architectures)
    folder = package.parent.parent
    done = fusegen_here("package", LAYER, "--name", "kernels_three", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "sm_80, sm_90 and newer ones" in done.stdout
    (file,) = (folder / "dist").glob("*.whl")
    assert f"`pip install dist/{file.name}`" in done.stdout
    assert f"kernels_three/{LAYER}/_cuda.so" in zipfile.ZipFile(file).namelist()


def test_two_packages_of_one_name(package: Path, tmp_path: Path) -> None:
    shutil.copytree(package, tmp_path / "other" / LAYER)
    with pytest.raises(UserError, match="have one name"):
        write_wheel([package, tmp_path / "other" / LAYER], "kernels_three", "1.0", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-kernels", "did you mean my_kernels"),
        ("2fast", "such as my_kernels"),
        ("class", "such as my_kernels"),
        ("_mine", "did you mean mine"),
        ("json", "Python has a module of that name"),
        ("Torch", "torch .* has that name"),
        ("yaml", "PyYAML .* has that name"),
        ("fusegen", "fusegen .* has that name"),
    ],
)
def test_a_name_that_it_cannot_have(name: str, message: str, package: Path) -> None:
    refused(package, message, "--name", name)


def test_a_new_version_of_an_installed_wheel(unpacked: Path) -> None:
    del unpacked
    assert importlib.metadata.version("kernels_one") == "1.0"
    check_name("kernels_one")


def test_a_version_that_is_none() -> None:
    check_version("1.0rc1")
    with pytest.raises(UserError, match=r"--version 1\.x: write numbers with dots"):
        check_version("1.x")


def test_without_hatchling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "hatchling.builders.wheel", None)
    with pytest.raises(UserError, match="run `pip install hatchling`"):
        write_wheel([tmp_path], "kernels_three", "1.0", tmp_path)


def test_the_licence_of_an_installed_fusegen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("fusegen.base.paths.package", lambda: tmp_path / "fusegen")
    (tmp_path / "LICENSE").write_text("of something else")
    (tmp_path / "fusegen" / "templates").mkdir(parents=True)
    assert shipping.licence() == (ROOT / "LICENSE").read_text()
