"""What a full disk, a killed build or a copy leaves: the next build repairs it, or says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from shared.tiny_packages import ALL, KERNELS, Heard, Workshop, answer, kernel, start

import fusegen
from fusegen.base import stamp
from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different
from fusegen.toolchain import builder
from fusegen.toolchain.builder import BuildResult
from fusegen.toolchain.compile_errors import CompileError
from fusegen.toolchain.spec_files import expand, find_spec
from fusegen.tools.cli import app as cli


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


# Damage that ninja does not see


@pytest.mark.parametrize("left", [0, 1, 100, 5000, -1, None])
def test_a_library_that_was_cut_short_is_made_again(left: int | None, shop: Workshop) -> None:
    a = shop.spec("a", kernel(3))
    shop.build(a)
    library = shop.out / "a" / "_cpu.so"
    content = library.read_bytes()
    library.write_bytes(b"a text" if left is None else content[:left])
    heard = Heard()
    assert shop.build(a, progress=heard)["a"].compiled == ("_cpu.so",)
    assert library.read_bytes() == content
    assert answer(library) == 3
    assert shop.build(a)["a"].compiled == ()


def test_a_library_of_another_package_is_made_again(shop: Workshop) -> None:
    a, b = shop.spec("a", kernel(1)), shop.spec("b", kernel(2))
    shop.build(a, b)
    shutil.copy(shop.out / "b" / "_cpu.so", shop.out / "a" / "_cpu.so")
    assert shop.build(a)["a"].compiled == ("_cpu.so",)
    assert answer(shop.out / "a" / "_cpu.so") == 1


def test_a_folder_in_a_librarys_place_is_named(shop: Workshop) -> None:
    a = shop.spec("a", kernel(1))
    shop.build(a)
    library = shop.out / "a" / "_cpu.so"
    library.unlink()
    library.mkdir()
    with pytest.raises(UserError, match=r"_cpu.so cannot be written: .*directory"):
        shop.build(a)


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01", b"a text"])
@pytest.mark.parametrize(
    "file", ["a/kernel_portable.o", "a/binding_cpu.o", "a/stamp.o", "binding_cpu.o"]
)
def test_a_damaged_object_is_compiled_again(file: str, content: bytes, shop: Workshop) -> None:
    a = shop.spec("a", kernel(4))
    shop.build(a)
    (shop.out / "a" / "_cpu.so").unlink()
    (shop.out / ".build" / file).write_bytes(content)
    shop.build(a)
    assert answer(shop.out / "a" / "_cpu.so") == 4
    assert shop.build(a)["a"].compiled == ()


def test_a_log_with_half_a_line_says_nothing(shop: Workshop) -> None:
    a = shop.spec("a", kernel(1))
    shop.build(a)
    with (shop.out / ".build" / ".ninja_log").open("ab") as log:
        log.write(b"17\t2\xff")
    shop.spec("a", kernel(2))
    assert "_cpu.so" in shop.build(a)["a"].compiled
    assert answer(shop.out / "a" / "_cpu.so") == 2


def test_sources_that_a_copy_made_older_are_compiled(shop: Workshop) -> None:
    """As `rsync -t`, an unpacked archive or a package manager leaves them."""
    a = shop.spec("a", kernel(1))
    shop.build(a)
    source = shop.out / "a" / "kernel.cpp"
    before = source.stat().st_mtime - 3600
    shop.spec("a", kernel(2))
    source.write_text(kernel(2))
    for path in (a, source):
        os.utime(path, (before, before))
    assert set(shop.build(a)["a"].compiled) == {*KERNELS, "stamp.o", "_cpu.so"}
    assert answer(shop.out / "a" / "_cpu.so") == 2


def test_an_older_header_of_fusegen_is_compiled(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    include = tmp_path / "include"
    (include / "fusegen").mkdir(parents=True)
    outer, inner = include / "fusegen" / "outer.h", include / "fusegen" / "inner.h"
    outer.write_text('#include "fusegen/inner.h"\n')
    inner.write_text("#define VALUE 1\n")
    monkeypatch.setattr("fusegen.base.paths.include", lambda: include)
    text = kernel(0).replace("return 0", "return VALUE")
    a = shop.spec("a", f'#include "fusegen/outer.h"\n{text}')
    shop.build(a)
    namespace = stamp.read(shop.out / "a" / "_cpu.so").namespace("a")
    inner.write_text("#define VALUE 2\n")
    os.utime(inner, (0, 0))
    assert "kernel_portable.o" in shop.build(a)["a"].compiled
    assert answer(shop.out / "a" / "_cpu.so") == 2
    assert stamp.read(shop.out / "a" / "_cpu.so").namespace("a") != namespace


def test_an_old_library_of_cuda_does_not_stay_beside_a_new_one(shop: Workshop) -> None:
    a = shop.spec("a", kernel(1))
    shop.build(a)
    cpu, cuda = shop.out / "a" / "_cpu.so", shop.out / "a" / "_cuda.so"
    shutil.copy(cpu, cuda)
    stamp.append(cuda, {**stamp.read(cpu).body(), "device": "cuda"})
    shop.build(a)
    assert cuda.exists()  # it is of the same sources
    shop.spec("a", kernel(2))
    heard = Heard()
    shop.build(a, progress=heard)
    assert not cuda.exists()
    assert heard.lines == [
        f"removed {cuda}, which is older than its sources; --backend cuda builds it"
    ]


# Builds that were killed


def test_builds_killed_at_random_moments_leave_the_next_one_good(shop: Workshop) -> None:
    """Beginning with nothing, then with the library of another text."""
    moments = random.Random(0)
    log = shop.compiler("sleep 0.05")
    for round_ in range(8):
        a = shop.spec("a", kernel(round_))
        process = start(a, shop.out)
        time.sleep(moments.uniform(0.0, 1.2))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        library = shop.out / "a" / "_cpu.so"
        if library.exists():
            stamp.read(library)  # whole, if old
        if round_ % 2:
            shop.build(a)
            assert answer(library) == round_, log.read_text()
            assert shop.build(a)["a"].compiled == ()


# Disks and folders that refuse


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_if_different(path, "before")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"file cannot be written: No space left on device; free"):
        write_if_different(path, "after")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_present_file_that_is_not_utf8_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe")
    assert write_if_different(path, "text")
    assert path.read_text() == "text"


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
"""


@pytest.mark.parametrize("limit", [0, 10, 100, 1000, 10_000])
def test_a_disk_that_is_full_is_an_error_and_the_next_build_is_good(
    limit: int, shop: Workshop
) -> None:
    """No file may have more bytes than the limit, which is how a full disk looks to a program."""
    from shared.tiny_packages import BINDING, DRIVER

    a = shop.spec("a", kernel(1))
    shop.build(a)
    good = (shop.out / "a" / "_cpu.so").read_bytes()
    shop.spec("a", kernel(2))
    code = LIMITED + DRIVER.format(binding=BINDING)
    command = [sys.executable, "-B", "-c", code, str(a), str(shop.out), str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()
    assert any(
        line.startswith(("fusegen.base.errors.UserError:", "fusegen.toolchain.compile_errors."))
        for line in last
    )
    assert (shop.out / "a" / "_cpu.so").read_bytes() == good
    shop.build(a)
    assert answer(shop.out / "a" / "_cpu.so") == 2
    assert not list((shop.out / "a").glob(".*"))


def test_a_full_disk_is_named_where_a_compiler_meets_it(shop: Workshop) -> None:
    shop.compiler("echo 'x.s: fatal error: No space left on device' >&2; exit 1")
    with pytest.raises(CompileError, match="out: the disk is full; free some space and build"):
        shop.build(shop.spec("a", kernel(1)))


def test_the_command_line_shows_no_traceback_where_the_system_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(number: int, *place: str) -> Any:
        def app(**_: object) -> None:
            raise OSError(number, os.strerror(number), *place)

        return app

    for app, said in (
        (refuse(errno.ENOSPC), "error: No space left on device\n"),
        (refuse(errno.EROFS, "/there"), "error: /there: Read-only file system\n"),
    ):
        monkeypatch.setattr(cli, "app", app)
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == 2
        assert capsys.readouterr().err == said
    monkeypatch.setattr(cli, "app", refuse(errno.EINVAL))
    with pytest.raises(OSError, match="Invalid"):  # a fault of fusegen's own keeps its traceback
        cli.main()


# What is built without being named, and what a name means


def test_building_without_arguments_builds_what_is_in_specs(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.spec("a", kernel(1))
    shop.spec("b", kernel(2))
    monkeypatch.chdir(shop.out.parent)
    results: list[BuildResult] = fusegen.build(backend="cpu")
    assert [(r.name, set(r.compiled)) for r in results] == [("a", ALL), ("b", ALL)]
    said = capfd.readouterr()
    assert said.out == ""
    assert "derived a" in said.err and "a/_cpu.so" in said.err
    assert "a (cpu): built, " in said.err
    assert [r.compiled for r in fusegen.build(backend="cpu")] == [(), ()]
    assert capfd.readouterr().err.splitlines()[-2:] == [
        "a (cpu): up to date",
        "b (cpu): up to date",
    ]
    fusegen.build(backend="cpu", quiet=True)
    assert capfd.readouterr().err == ""


def test_without_arguments_and_without_specs_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"no folder specs/ in {tmp_path}; name the spec files"):
        fusegen.build()
    with pytest.raises(UserError, match="no folder specs/"):
        builder.build([], out=tmp_path / "out")


def test_a_name_means_the_spec_here_or_in_specs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.yaml").write_text("chain: [relu]\n")
    Path("specs").mkdir()
    Path("specs/there.yml").write_text("# mine\nchain: [relu]\n")
    Path("mkdocs.yml").write_text("nav: []\n")  # is no spec
    assert find_spec("here") == find_spec("here.yaml") == Path("here.yaml")
    assert find_spec("there") == find_spec("specs/there") == Path("specs/there.yml")
    assert expand([Path("here"), Path("there")]) == [Path("here.yaml"), Path("specs/there.yml")]
    # As a shell completes a package's name.
    for folder in ("generated/here", "generated/there/", "here"):
        Path(folder).mkdir(parents=True)
        Path(folder, "element.h").write_text("")
        assert find_spec(folder) == find_spec(Path(folder).name)
        assert expand([Path(folder)]) == [find_spec(Path(folder).name)]
    with pytest.raises(UserError, match=r"hear: no such spec; did you mean here.yaml\?"):
        find_spec("hear")
    with pytest.raises(UserError, match=r"did you mean specs/there.yml\?"):
        find_spec("ther")
    with pytest.raises(UserError, match=r"no such spec; in \./ and specs/ there are: here, there"):
        find_spec("quite_another")
    Path("specs/here.yaml").write_text("")
    with pytest.raises(UserError, match=r"may mean here.yaml or specs/here.yaml; name the file"):
        find_spec("here")
