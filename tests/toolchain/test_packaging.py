"""The wheel works in an empty folder, and a generated package needs torch and the runtime alone."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

ALONE = """
import json, sys, torch
before = set(sys.modules)
sys.path.insert(0, {generated!r})
import residual_add_gelu
new = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(json.dumps([sorted(new), [name for name in sys.modules if name.startswith("fusegen")]]))
"""


def python(code: str, cwd: Path, path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_package_imports_with_torch_and_the_runtime_alone(
    generated: Path, tmp_path: Path
) -> None:
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = python(ALONE.format(generated=str(generated)), tmp_path, search)
    roots, ours = json.loads(done.stdout)
    assert not set(roots) & {
        "sympy",
        "jinja2",
        "pydantic",
        "yaml",
        "rich",
        "typer",
        "ninja",
        "mpmath",
    }
    parts = ("base", "base.version", "base.shipped", "base.stamp", "base.paths")
    beside = {"fusegen", *(f"fusegen.{name}" for name in parts)}
    assert all(name in beside or "runtime" in name for name in ours), ours


@pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None,
    reason="hatchling, which builds the wheel, is not here",
)
def test_the_wheel_builds_a_spec_in_an_empty_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [
            *pip,
            "wheel",
            str(ROOT),
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path / "dist"),
        ],
        check=True,
    )
    (wheel,) = (tmp_path / "dist").glob("fusegen-*.whl")
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    assert {"fusegen/py.typed", "fusegen/templates/element.h.j2"} <= names
    assert "fusegen/templates/include/fusegen/elementary.h" in names
    assert not any(name.startswith(("tests/", "specs/")) for name in names)
    about = wheel.name.split("-py3")[0] + ".dist-info"
    assert (
        "License-Expression: Apache-2.0" in archive.read(f"{about}/METADATA").decode().splitlines()
    )
    assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    site, empty = tmp_path / "site", tmp_path / "empty"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    empty.mkdir()
    (empty / "wheel_chain.yaml").write_text("chain:\n  - swish\n  - expr: 'x * 2'\n")
    build = (
        "import fusegen; fusegen.build('wheel_chain.yaml', backend='cpu'); import torch;"
        "print(fusegen.__file__); print(fusegen.load('wheel_chain').apply(torch.zeros(2)).tolist())"
    )
    done = python(build, empty, os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    assert done.returncode == 0, done.stderr
    where, result = done.stdout.splitlines()
    commands = "import sys; from fusegen.tools.cli import main; sys.argv[1:] = ['schema']; main()"
    printed = python(
        commands, empty, os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    )
    assert printed.stdout == (ROOT / "specs" / "fusegen.schema.json").read_text()
    assert where.startswith(str(site))
    assert result == "[0.0, 0.0]"
