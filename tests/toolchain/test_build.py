"""Building: what is rebuilt and what is not, several builders at once, killed builds, compilers' errors."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
from conftest import ROOT

import fusegen
from fusegen.base import stamp
from fusegen.base.errors import SpecError, UserError
from fusegen.toolchain import builder
from fusegen.toolchain.compile_errors import CompileError, compile_error
from fusegen.toolchain.compilers import architectures, find_compilers, find_nvcc
from fusegen.toolchain.jobs import jobs
from fusegen.toolchain.ninja_run import find_ninja

#: For one instruction set; test_isas.py and test_builder.py see that packages are compiled for each.
pytestmark = pytest.mark.usefixtures("native")
CHAIN = "chain:\n  - {op}\n"


def write(folder: Path, name: str, op: str = "swish") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(CHAIN.format(op=op))
    return path


def run(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": search, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


BUILD = (
    "from pathlib import Path; from fusegen.toolchain import builder;"
    "builder.build([Path('specs')], out=Path('out'), backend='cpu')"
)
LOADS = "import torch, fusegen; print(fusegen.load('{}', 'out').apply(torch.zeros(3)).sum().item())"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two built packages."""
    folder = tmp_path_factory.mktemp("built")
    write(folder / "specs", "build_one")
    write(folder / "specs", "build_two", "tanh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEGEN_NATIVE", "1")
        builder.build([folder / "specs"], out=folder / "out", backend="cpu")
    return folder


def build(folder: Path) -> dict[str, builder.BuildResult]:
    results = builder.build([folder / "specs"], out=folder / "out", backend="cpu")
    return {r.name: r for r in results}


def test_a_second_build_does_nothing(built: Path) -> None:
    assert all(not r.compiled and not r.rendered for r in build(built).values())


def test_a_build_with_nothing_to_do_imports_nothing_slow(built: Path) -> None:
    build(built)
    done = run(
        BUILD + "; import sys; print({'torch', 'sympy', 'jinja2'} & set(sys.modules))", built
    )
    assert done.stdout.strip() == "set()", done.stderr


def test_one_changed_spec_rebuilds_only_itself(built: Path) -> None:
    write(built / "specs", "build_two", "mish")
    results = build(built)
    assert results["build_two"].compiled
    assert not results["build_one"].compiled


def test_an_edited_source_is_rendered_anew(built: Path) -> None:
    source = built / "out" / "build_one" / "element.h"
    text = source.read_text()
    source.write_text(text + "// edited\n")
    assert build(built)["build_one"].rendered
    assert source.read_text() == text


def test_sources_depend_on_the_shared_headers(built: Path) -> None:
    command = [find_ninja(), "-C", str(built / "out"), "-f", ".build/build.ninja", "-t", "deps"]
    deps = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kernel = deps.split(".build/build_one/kernel_portable.o:")[1].split("\n\n")[0]
    assert "fusegen/elementary.h" in kernel
    assert "fusegen/cpu.h" in kernel
    assert "torch/" not in kernel  # kernels include no torch header


def test_a_changed_header_rebuilds(built: Path) -> None:
    build(built)
    object_file = built / "out" / ".build" / "build_one" / "kernel_portable.o"
    before = object_file.stat().st_mtime_ns
    header = built / "out" / "build_one" / "kernel.h"
    os.utime(header, ns=(time.time_ns(), time.time_ns()))
    assert build(built)["build_one"].compiled
    assert object_file.stat().st_mtime_ns > before


def test_an_error_in_one_spec_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "specs", "good")
    write(tmp_path / "specs", "wrong", "swich")
    with pytest.raises(SpecError, match=r"wrong.yaml:2: .*swish"):
        build(tmp_path)
    assert not (tmp_path / "out" / "good").exists()
    assert not (tmp_path / "out" / "wrong").exists()


def test_several_processes_build_at_once(tmp_path: Path) -> None:
    write(tmp_path / "specs", "at_once")
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD], cwd=tmp_path, env={**os.environ, "PYTHONPATH": search}
        )
        for _ in range(3)
    ]
    assert [p.wait(timeout=120) for p in processes] == [0, 0, 0]
    assert float(run(LOADS.format("at_once"), tmp_path).stdout) == 0.0


def test_a_killed_build_is_followed_by_a_good_one(tmp_path: Path) -> None:
    write(tmp_path / "specs", "killed")
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / ".build" / "build.ninja").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # while the compilers work
    process.wait()
    assert not (tmp_path / "out" / "killed" / "_cpu.so").exists()
    build(tmp_path)
    assert float(run(LOADS.format("killed"), tmp_path).stdout) == 0.0


def test_the_lock_names_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "specs", "locked")
    work = tmp_path / "out" / ".build"
    work.mkdir(parents=True)
    (work / "lock.holder").write_text("process 4711 on somewhere")
    monkeypatch.setenv("FUSEGEN_LOCK_TIMEOUT", "0.2")
    said: list[str] = []

    class Listener(builder.Silent):
        def say(self, text: str) -> None:
            said.append(text)

    with (
        filelock.FileLock(work / "lock"),
        pytest.raises(UserError, match=r"process 4711 .*FUSEGEN_LOCK_TIMEOUT"),
    ):
        builder.build([tmp_path / "specs"], out=tmp_path / "out", progress=Listener())
    assert said == [
        f"waiting for process 4711 on somewhere, which is building in {tmp_path / 'out'}"
    ]


def test_a_compilers_error_is_shown_with_its_line(tmp_path: Path) -> None:
    source = tmp_path / "broken.cpp"
    source.write_text("int one() {\n  return undefined_name;\n}\n")
    command = [str(find_compilers().cxx), "-c", "broken.cpp", "-o", "broken.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    message = str(compile_error(done.stderr, tmp_path))
    assert "broken.cpp:2: " in message
    assert ">     2 |   return undefined_name;" in message
    caret = next(line for line in message.splitlines() if line.strip() == "^")
    assert caret.index("^") == ">     2 |   return undefined_name;".index("undefined_name")


def test_nvccs_errors_are_understood(tmp_path: Path) -> None:
    (tmp_path / "kernel.cu").write_text("int a;\nint b;\n")
    message = str(compile_error('kernel.cu(2): error: identifier "T" is undefined', tmp_path))
    assert message.splitlines()[2:] == [
        'kernel.cu:2: identifier "T" is undefined',
        "      1 | int a;",
        ">     2 | int b;",
    ]


def test_a_failing_compiler_is_a_compile_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "c++"
    fake.write_text("#!/bin/sh\necho 'x.cpp:1:1: error: no' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    write(tmp_path / "specs", "refused")
    with pytest.raises(CompileError, match=r"x.cpp:1: no"):
        build(tmp_path)


def test_a_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"CXX=no-such-compiler.*apt-get install g\+\+"):
        find_compilers()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"looked for g\+\+, clang\+\+"):
        find_compilers()


def test_cuda_without_nvcc_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusegen.toolchain.compilers.find_nvcc", lambda: None)
    spec = write(tmp_path, "no_nvcc")
    with pytest.raises(UserError, match="install the CUDA toolkit"):
        builder.build([spec], out=tmp_path / "out", backend="cuda")


@pytest.mark.nvcc
@pytest.mark.skipif(find_nvcc() is None, reason="no nvcc here")
def test_architectures() -> None:
    nvcc = find_nvcc()
    assert nvcc is not None
    assert architectures(["90", "sm_80,8.0"], nvcc) == ("90", "80")
    with pytest.raises(UserError, match=r"--arch sm_12: .* knows .*90"):
        architectures(["sm_12"], nvcc)


@pytest.mark.nvcc
@pytest.mark.skipif(find_nvcc() is None, reason="no nvcc here")
def test_cuda_builds_without_a_gpu(tmp_path: Path) -> None:
    spec = write(tmp_path, "for_cuda")
    builder.build([spec], out=tmp_path / "out", backend="cuda", arch=["90"], dtypes=["float32"])
    library = tmp_path / "out" / "for_cuda" / "_cuda.so"
    assert stamp.read(library).architectures == ("90",)
    assert stamp.read(library.with_name("_cpu.so")).architectures == ()
    needed = subprocess.run(
        ["readelf", "-d", library], capture_output=True, text=True, check=True
    ).stdout
    assert "libtorch_cuda.so" in needed
    assert "libcudart" not in needed  # CUDA's runtime is inside


def test_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_JOBS", "3")
    assert jobs(None) == 3
    assert jobs(5) == 5
    with pytest.raises(UserError, match="at least 1"):
        jobs(0)
    monkeypatch.delenv("MAX_JOBS")
    assert 1 <= jobs(None) <= (os.cpu_count() or 1)


def test_which_specs_are_meant(tmp_path: Path) -> None:
    spec = write(tmp_path / "a", "chain_one")
    with pytest.raises(UserError, match=r"no such spec; did you mean .*chain_one.yaml"):
        builder.expand([tmp_path / "a" / "chain_on.yaml"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no spec"):
        builder.expand([tmp_path / "empty"])
    other = write(tmp_path / "b", "chain_one")
    with pytest.raises(UserError, match="rename one"):
        builder.expand([spec, other])
    assert builder.expand([spec, tmp_path / "a"]) == [spec]


def test_building_and_loading_from_python(tmp_path: Path) -> None:
    write(tmp_path / "specs", "from_python")
    code = "import fusegen; print(fusegen.build('specs', out='out', backend='cpu')[0].name)"
    assert run(code, tmp_path).stdout.strip() == "from_python"
    assert float(run(LOADS.format("from_python"), tmp_path).stdout) == 0.0


def test_a_package_that_is_not_built_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="fusegen build"):
        fusegen.load("nowhere", tmp_path)
    package = tmp_path / "matmul_swish_scale"
    package.mkdir()
    shutil.copy(ROOT / "generated" / "matmul_swish_scale" / "__init__.py", package)
    done = run("import fusegen; fusegen.load('matmul_swish_scale', '.')", tmp_path)
    assert re.search(
        r"ImportError: matmul_swish_scale: .*run `fusegen build matmul_swish_scale", done.stderr
    )
