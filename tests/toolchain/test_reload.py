"""A package that is rebuilt in a process: `load` gives the new chain, the old module keeps the old one."""

from __future__ import annotations

import copy
import importlib
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT

import fusegen

NAME = "reloaded"
SPEC = f"{NAME}.yaml"
#: What the spec says one after the other, and the function. The second has a result of another shape.
VERSIONS = {
    "x * 2": ("order: 1\nchain:\n  - expr: x * 2\n", lambda x: x * 2),
    "its sum": (
        "order: 1\nchain:\n  - expr: x * x\n  - sum: {dim: -1}\n",
        lambda x: (x * x).sum(-1),
    ),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, ModuleType]]:
    """Builds each version into one folder, loads it in this process, and keeps a copy of the folder."""
    folder = tmp_path_factory.mktemp("reload")
    loaded: dict[str, ModuleType] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEGEN_NATIVE", "1")
        for number, (version, (text, _)) in enumerate(VERSIONS.items()):
            (folder / SPEC).write_text(text)
            fusegen.build(folder / SPEC, out=folder / "generated", backend="cpu", quiet=True)
            loaded[version] = fusegen.load(NAME, folder / "generated")
            shutil.copytree(folder / "generated" / NAME, folder / str(number) / NAME)
    return folder, loaded


def right(module: ModuleType, version: str) -> None:
    """The value and the gradient of a version."""
    x = torch.tensor([[1.0, -3.0, 0.5]], dtype=torch.float64, requires_grad=True)
    wanted = VERSIONS[version][1](x)
    got = module.apply(x)
    torch.testing.assert_close(got, wanted)
    c = torch.rand_like(wanted)
    torch.testing.assert_close(torch.autograd.grad(got, x, c), torch.autograd.grad(wanted, x, c))


def test_building_and_loading_again_gives_the_new_chain(
    built: tuple[Path, dict[str, ModuleType]],
) -> None:
    _, loaded = built
    for _ in range(2):  # the old ones beside the new one, in any order
        for version, module in loaded.items():
            right(module, version)


def test_a_package_that_did_not_change_is_the_same_module(
    built: tuple[Path, dict[str, ModuleType]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, loaded = built
    newest = loaded["its sum"]
    assert fusegen.load(NAME, folder / "generated") is newest
    monkeypatch.setenv("FUSEGEN_NATIVE", "1")
    fusegen.build(folder / SPEC, out=folder / "generated", backend="cpu", quiet=True)
    assert fusegen.load(NAME, folder / "generated") is newest
    monkeypatch.chdir(folder)
    assert fusegen.load(NAME) is newest


def test_going_back_to_an_earlier_version(
    built: tuple[Path, dict[str, ModuleType]], tmp_path: Path
) -> None:
    folder, _ = built
    place = tmp_path / NAME
    for number, version in (*enumerate(VERSIONS), *enumerate(VERSIONS)):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / str(number) / NAME, place)
        right(fusegen.load(NAME, tmp_path), version)


def test_packages_of_one_name_in_several_folders(
    built: tuple[Path, dict[str, ModuleType]], tmp_path: Path
) -> None:
    folder, _ = built
    modules = [fusegen.load(NAME, folder / str(number)) for number in range(len(VERSIONS))]
    for module, version in zip(modules, VERSIONS, strict=True):
        right(module, version)
    for number, module in enumerate(modules):
        assert fusegen.load(NAME, folder / str(number)) is module
    shutil.copytree(folder / "0" / NAME, tmp_path / "elsewhere")  # the same operators from there
    copied = fusegen.load("elsewhere", tmp_path)
    assert copied._chain.namespace == modules[0]._chain.namespace
    right(copied, "x * 2")


def test_pickles_and_copies(built: tuple[Path, dict[str, ModuleType]]) -> None:
    folder, loaded = built
    old = loaded["x * 2"].Module()
    right_old = copy.deepcopy(old)  # copies belong to the old chain
    assert right_old(torch.ones(1, 2)).tolist() == [[2.0, 2.0]]
    newest = fusegen.load(NAME, folder / "generated")
    assert newest is loaded["its sum"]
    saved = io.BytesIO()
    torch.save(newest.Module(), saved)
    saved.seek(0)
    back = torch.load(saved, weights_only=False)
    assert type(back) is newest.Module
    assert back(torch.ones(1, 2)).tolist() == [2.0]
    with pytest.raises(pickle.PicklingError, match="not the same object"):
        pickle.dumps(old)  # a class is pickled by its name, which is the new one's


def test_an_import_that_fails_leaves_the_module_that_was_there(
    built: tuple[Path, dict[str, ModuleType]], tmp_path: Path
) -> None:
    folder, _ = built
    place = tmp_path / NAME
    shutil.copytree(folder / "0" / NAME, place)
    module = fusegen.load(NAME, tmp_path)
    library = place / "_cpu.so"
    os.rename(library, tmp_path / "library")
    library.write_bytes((tmp_path / "library").read_bytes()[:-1])
    with pytest.raises(ImportError, match="has no stamp"):
        fusegen.load(NAME, tmp_path)
    assert sys.modules[f"fusegen_generated.{NAME}"] is module
    right(module, "x * 2")
    os.rename(tmp_path / "library", library)
    assert fusegen.load(NAME, tmp_path) is module


def test_importlib_reload_of_a_package_that_was_imported(
    built: tuple[Path, dict[str, ModuleType]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own cache takes a file of the same size and second for the same."""
    folder, _ = built
    monkeypatch.syspath_prepend(str(tmp_path))
    for number, version in enumerate(VERSIONS):
        shutil.rmtree(tmp_path / NAME, ignore_errors=True)
        shutil.copytree(folder / str(number) / NAME, tmp_path / NAME)
        importlib.invalidate_caches()
        module = importlib.reload(sys.modules[NAME]) if number else importlib.import_module(NAME)
        right(module, version)
    del sys.modules[NAME]


def test_a_stale_cache_of_python_is_not_run(
    built: tuple[Path, dict[str, ModuleType]], tmp_path: Path
) -> None:
    folder, _ = built
    source = tmp_path / NAME / "__init__.py"
    shutil.copytree(folder / "0" / NAME, source.parent)
    good = source.read_bytes()
    wrong = good.replace(b"y", b"z", 1)
    moment = 1_000_000_000 * 10**9
    source.write_bytes(wrong + b"raise SystemExit\n")
    source.write_bytes(good)
    os.utime(source, ns=(moment, moment))
    cached = Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir(exist_ok=True)
    code = importlib._bootstrap_external._code_to_timestamp_pyc(  # type: ignore[attr-defined]
        compile("raise SystemExit", str(source), "exec"), moment // 10**9, len(good)
    )
    cached.write_bytes(code)
    right(fusegen.load(NAME, tmp_path), "x * 2")


MEANWHILE = """
import os, sys
sys.path.insert(0, sys.argv[1])
import fusegen.runtime.binaries as binaries
find = binaries.find_binaries
def after_a_build(*given):  # between what Python read and the package's libraries
    os.rename(sys.argv[1] + "/reloaded", sys.argv[1] + "/old")
    os.rename(sys.argv[2] + "/reloaded", sys.argv[1] + "/reloaded")
    return find(*given)
binaries.find_binaries = after_a_build
import reloaded
"""


def test_a_build_while_a_package_is_imported(
    built: tuple[Path, dict[str, ModuleType]], tmp_path: Path
) -> None:
    """Importing torch takes seconds, in which another process may build."""
    folder, _ = built
    for number in ("0", "1"):
        shutil.copytree(folder / number, tmp_path / number)
    command = [sys.executable, "-c", MEANWHILE, str(tmp_path / "0"), str(tmp_path / "1")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "ImportError: reloaded: " in done.stderr
    assert "__init__.py was rewritten while it was imported; import it again" in done.stderr


def test_compiled_functions_follow(built: tuple[Path, dict[str, ModuleType]]) -> None:
    """A compiled function of the old module keeps its chain; one of the new module has the new one."""
    _, loaded = built
    torch._dynamo.reset()
    module = loaded["x * 2"]
    x = torch.tensor([[1.0, -3.0, 0.5]])

    def call(t: torch.Tensor) -> torch.Tensor:
        return module.apply(t + 1)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), VERSIONS["x * 2"][1](x + 1))
    module = loaded["its sum"]
    torch.testing.assert_close(compiled(x), VERSIONS["its sum"][1](x + 1))


LOADED = """
import sys, torch
torch.ops.load_library(sys.argv[2] + "/reloaded/_cpu.so")
import fusegen
print(fusegen.load("reloaded", sys.argv[1]).apply(torch.ones(1, 2)).tolist())
"""


@pytest.mark.parametrize("place", ["0", "1"])
def test_a_library_that_was_loaded_by_hand_is_not_loaded_again(
    place: str, built: tuple[Path, dict[str, ModuleType]], tmp_path: Path
) -> None:
    """From another copy of the package: torch ends the process where operators are registered twice."""
    folder, _ = built
    shutil.copytree(folder / place / NAME, tmp_path / NAME)
    command = [sys.executable, "-c", LOADED, str(folder / place), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == ("[[2.0, 2.0]]" if place == "0" else "[2.0]"), done.stderr


# Where a package is looked for

FROM = "import fusegen, torch; print(fusegen.load('reloaded').apply(torch.ones(1, 2)).tolist())\n"


def test_a_package_is_found_from_folders_below_and_from_its_program(
    built: tuple[Path, dict[str, ModuleType]], tmp_path: Path
) -> None:
    folder, _ = built
    project = tmp_path / "project"
    shutil.copytree(folder / "0" / NAME, project / "generated" / NAME)
    (project / "notebooks").mkdir()
    (project / "train.py").write_text(FROM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command, cwd in (
        ([sys.executable, "-c", FROM], project / "notebooks"),
        ([sys.executable, str(project / "train.py")], tmp_path),
    ):
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == "[[2.0, 2.0]]", done.stderr


def test_a_package_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportError, match=rf"{tmp_path}/generated.*`fusegen build nowhere`.*out="):
        fusegen.load("nowhere")
    with pytest.raises(ImportError, match="`fusegen build nowhere --out"):
        fusegen.load("nowhere", tmp_path)


@pytest.mark.parametrize("name", ["reloaded.yaml", "generated/reloaded", "", "../reloaded"])
def test_what_is_no_name_is_named(name: str, tmp_path: Path) -> None:
    for out in (None, tmp_path):
        with pytest.raises(ImportError, match=r"is not a package's name: .* without .yaml"):
            fusegen.load(name, out)
