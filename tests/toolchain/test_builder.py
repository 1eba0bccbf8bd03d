"""What a build does, seen on packages that compile in no time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from shared.tiny_packages import (
    ALL,
    KERNELS,
    WEAK,
    Heard,
    Workshop,
    answer,
    kernel,
    overlap,
    render,
)

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different
from fusegen.toolchain import builder, compilers
from fusegen.toolchain.compile_errors import CompileError
from fusegen.toolchain.compilers import Compilers, find_nvcc
from fusegen.toolchain.rendered import RenderedPackage


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


# What is compiled


def test_a_library_works_and_a_second_build_does_nothing(shop: Workshop) -> None:
    a = shop.spec("a", kernel(41))
    first = shop.build(a)["a"]
    assert (first.rendered, set(first.compiled), first.backends) == (True, ALL, ("cpu",))
    assert first.seconds > 0
    assert answer(shop.out / "a" / "_cpu.so") == 41
    before = (shop.out / "a" / "_cpu.so").stat()
    second = shop.build(a)["a"]
    assert (second.rendered, second.compiled, second.seconds) == (False, (), 0)
    after = (shop.out / "a" / "_cpu.so").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_spec_rebuilds_only_itself(shop: Workshop) -> None:
    a, b = shop.spec("a", kernel(1)), shop.spec("b", kernel(2))
    shop.build(a, b)
    shop.spec("b", kernel(3))
    results = shop.build(a, b)
    assert results["a"].compiled == ()
    assert set(results["b"].compiled) == {*KERNELS, "stamp.o", "_cpu.so"}  # the binding is the same
    assert [answer(shop.out / name / "_cpu.so") for name in "ab"] == [1, 3]


def test_a_spec_written_anew_with_the_same_text_rebuilds_nothing(shop: Workshop) -> None:
    shop.build(shop.spec("a", kernel(1)))
    os.utime(shop.spec("a", kernel(1)), (time.time() + 5, time.time() + 5))
    result = shop.build(shop.out.parent / "specs" / "a.yaml")["a"]
    assert (result.rendered, result.compiled) == (False, ())


def test_a_changed_header_rebuilds_what_includes_it(tmp_path: Path, shop: Workshop) -> None:
    header = tmp_path / "value.h"
    header.write_text("#define VALUE 1\n")
    a = shop.spec("a", f'#include "{header}"\n{WEAK} int kernel() {{ return VALUE; }}\n')
    b = shop.spec("b", kernel(5))
    shop.build(a, b)
    header.write_text("#define VALUE 2\n")
    results = shop.build(a, b)
    assert set(results["a"].compiled) == {*KERNELS, "_cpu.so"}
    assert not (results["a"].rendered or results["b"].compiled)
    assert answer(shop.out / "a" / "_cpu.so") == 2


def test_packages_of_other_calls_are_kept(shop: Workshop) -> None:
    a, b = shop.spec("a", kernel(1)), shop.spec("b", kernel(2))
    shop.build(a)
    assert list(shop.build(b)) == ["b"]
    assert [r.compiled for r in shop.build(a, b).values()] == [(), ()]


def test_writing_the_same_text_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    assert write_if_different(path, "a")
    before = path.stat()
    assert not write_if_different(path, "a")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert write_if_different(path, "b")
    assert path.read_text() == "b"
    assert path.stat().st_ino != before.st_ino  # replaced, not written over
    assert list(path.parent.iterdir()) == [path]


def test_check_shows_what_differs_and_writes_nothing(shop: Workshop) -> None:
    a = shop.spec("a", kernel(1))
    assert len(builder.check([a], out=shop.out)) == 2  # neither file is there
    assert not shop.out.exists()
    shop.build(a)
    assert builder.check([a], out=shop.out) == []
    (shop.out / "a" / "kernel.cpp").write_text(kernel(7))
    (difference,) = builder.check([a], out=shop.out)
    assert f"-{WEAK} int kernel() {{ return 7; }}" in difference.splitlines()
    assert f"+{WEAK} int kernel() {{ return 1; }}" in difference.splitlines()
    assert (shop.out / "a" / "kernel.cpp").read_text() == kernel(7)


def test_clean_removes_what_was_compiled_and_no_source(shop: Workshop) -> None:
    a = shop.spec("a", kernel(1))
    shop.build(a)
    assert set(builder.clean(shop.out)) == {shop.out / "a" / "_cpu.so", shop.out / ".build"}
    assert {p.name for p in shop.out.rglob("*")} == {"a", "kernel.cpp", "binding.cpp"}
    assert set(shop.build(a)["a"].compiled) == ALL


# Jobs and progress


@pytest.mark.parametrize(("options", "variable", "most"), [({"jobs": 1}, "8", 1), ({}, "1", 1)])
def test_jobs_bounds_the_compilers(
    options: dict[str, int],
    variable: str,
    most: int,
    shop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAX_JOBS", variable)
    log = shop.compiler("sleep 0.1")
    shop.build(shop.spec("a", kernel(1)), shop.spec("b", kernel(2)), **options)
    assert overlap(log) == most


def test_several_jobs_run_at_once(shop: Workshop) -> None:
    log = shop.compiler("sleep 0.3")
    shop.build(shop.spec("a", kernel(1)), shop.spec("b", kernel(2)), jobs=3)
    assert 2 <= overlap(log) <= 3


def test_progress_counts_every_file_to_the_end(shop: Workshop) -> None:
    heard = Heard()
    shop.build(shop.spec("a", kernel(1)), shop.spec("b", kernel(2)), progress=heard)
    assert heard.steps[:2] == [(1, 2, "derived a"), (2, 2, "derived b")]
    compiled = heard.steps[2:]
    total = compiled[0][1]
    assert [done for done, _, _ in compiled] == list(range(1, total + 1))
    shown = " ".join(what for _, _, what in compiled)
    for name in "ab":
        for file in ("kernel.cpp", "binding.cpp", "_cpu.so"):
            assert f"{name}/{file}" in shown


def test_verbose_shows_the_commands(shop: Workshop) -> None:
    heard = Heard()
    shop.build(shop.spec("a", kernel(1)), verbose=True, progress=heard)
    assert any("-O3" in what and "-c a/kernel.cpp" in what for _, _, what in heard.steps)


# CUDA


def pretend(monkeypatch: pytest.MonkeyPatch, nvcc: Path | None, gpus: Sequence[str]) -> None:
    present = Compilers(Path(shutil.which("g++") or "g++"), nvcc)
    monkeypatch.setattr(builder, "find_compilers", lambda: present)
    for module in (builder, compilers):
        monkeypatch.setattr(module, "gpu_capabilities", lambda: tuple(gpus))


def test_auto_without_a_gpu_is_the_cpu_alone(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, Path("/there/is/nvcc"), [])
    assert shop.build(shop.spec("a", kernel(1)), backend="auto")["a"].backends == ("cpu",)


@pytest.mark.nvcc
@pytest.mark.skipif(find_nvcc() is None, reason="no nvcc here")
def test_cuda_is_built_beside_the_cpu_and_neither_disturbs_the_other(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_cuda(path: Path) -> RenderedPackage:
        cpu = render(path)
        few = {
            "form.h": "#define FUSEGEN_DTYPES float32 + bfloat16\n",
            "kernel.cu": path.read_text(),
        }
        return RenderedPackage(path.stem, {**cpu.files, **few})

    monkeypatch.setattr("fusegen.toolchain.pipeline.render_package", with_cuda)
    pretend(monkeypatch, find_nvcc(), ["90"])
    a = shop.spec("a", kernel(3))
    result = shop.build(a, backend="auto")["a"]  # nvcc and a GPU
    assert result.backends == ("cpu", "cuda")
    units = {"kernel_float32.o", "kernel_bfloat16.o"}
    assert set(result.compiled) == ALL | {*units, "binding_cuda.o", "_cuda.so"}
    needed = subprocess.run(
        ["readelf", "-d", shop.out / "a" / "_cuda.so"], capture_output=True, text=True, check=True
    ).stdout
    assert "libcudart" not in needed  # it is inside
    for backend in ("cpu", "cuda", "auto"):
        assert shop.build(a, backend=backend)["a"].compiled == (), backend


def test_a_failed_link_leaves_the_old_library(shop: Workshop) -> None:
    shop.compiler("")
    a = shop.spec("a", kernel(1))
    shop.build(a)
    good = (shop.out / "a" / "_cpu.so").read_bytes()
    shop.spec("a", kernel(2))
    shop.compiler(
        'case "$*" in *kernel_portable.o*-o*so*) echo half > a/_cpu.so.new; exit 1;; esac'
    )
    with pytest.raises(CompileError):
        shop.build(a)
    assert (shop.out / "a" / "_cpu.so").read_bytes() == good
    shop.compiler("")
    shop.build(a)
    assert answer(shop.out / "a" / "_cpu.so") == 2


# What users' machines have


def test_seconds_are_those_of_this_build(shop: Workshop, tmp_path: Path) -> None:
    """Builds right after one another, of which ninja's log holds the same outputs."""
    header = tmp_path / "value.h"
    a = shop.spec("a", f'#include "{header}"\n{WEAK} int kernel() {{ return VALUE; }}\n')
    for value in range(4):
        header.write_text(f"#define VALUE {value}\n")
        made = shop.build(a)["a"].compiled
        assert sorted(made) == sorted(ALL if value == 0 else (*KERNELS, "_cpu.so"))
        assert shop.build(a)["a"].compiled == ()


@pytest.mark.parametrize("limit", ["0", "many", "-1", "1.5", "²"])
def test_a_max_jobs_that_is_no_number_is_named(
    limit: str, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = shop.spec("a", kernel(1))
    monkeypatch.setenv("MAX_JOBS", limit)
    with pytest.raises(UserError, match=f"MAX_JOBS={re.escape(limit)}: expected a whole number"):
        shop.build(a)
    assert shop.build(a, jobs=1)["a"].compiled  # an explicit number wins


@pytest.mark.parametrize("name", ["my ext", "a$b", "c:d", "a-b"])
def test_a_strangers_folder_is_left_alone(name: str, shop: Workshop) -> None:
    (shop.out / name).mkdir(parents=True)
    (shop.out / name / "binding.cpp").write_text("not ours")
    (shop.out / name / "_ctypes.so").write_text("not ours")
    assert set(shop.build(shop.spec("a", kernel(1)))["a"].compiled) == ALL
    builder.clean(shop.out)
    assert (shop.out / name / "_ctypes.so").exists()


def test_paths_may_hold_spaces_and_signs(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    include = shop.out.parent / "a $b 'c'" / "include"
    include.mkdir(parents=True)
    (include / "value.h").write_text("#define VALUE 6\n")
    monkeypatch.setattr("fusegen.base.paths.include", lambda: include)
    shop.build(shop.spec("a", f'#include "value.h"\n{WEAK} int kernel() {{ return VALUE; }}\n'))
    assert answer(shop.out / "a" / "_cpu.so") == 6


def test_cxx_may_be_a_relative_path(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    script = shop.compiler()
    script = script.with_name("noting-g++")
    monkeypatch.chdir(script.parent)
    monkeypatch.setenv("CXX", "./noting-g++")
    shop.build(shop.spec("a", kernel(1)))
    assert answer(shop.out / "a" / "_cpu.so") == 1


def test_an_architecture_that_is_not_used_is_named(shop: Workshop) -> None:
    heard = Heard()
    shop.build(shop.spec("a", kernel(1)), arch=["90"], progress=heard)
    assert heard.lines == ["--arch 90 is not used: this builds for the CPU alone"]


def test_verbose_shows_what_the_compiler_warns_of(shop: Workshop) -> None:
    a = shop.spec("a", f"{WEAK} int kernel() {{ int unused_one; return 1; }}\n")
    heard = Heard()
    shop.build(a, verbose=True, progress=heard)
    assert any("unused_one" in line for line in heard.lines)


def test_a_folder_that_cannot_be_made_is_a_mistake(shop: Workshop) -> None:
    shop.out.write_text("a file")
    with pytest.raises(UserError, match=r"out: packages cannot be written there .*another folder"):
        shop.build(shop.spec("a", kernel(1)))


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_lock_timeout_that_is_no_number_is_named(
    text: str, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEGEN_LOCK_TIMEOUT", text)
    with pytest.raises(UserError, match=f"FUSEGEN_LOCK_TIMEOUT={text}: expected a number"):
        shop.build(shop.spec("a", kernel(1)))
